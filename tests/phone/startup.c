/* What programs built for Android find in libc.so and glibc has not, over glibc (NEEDED): for the test phone only. */
#ifdef EMPTY
int test_phone_empty;
#else
int __libc_start_main(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void), void *);

__attribute__((noreturn)) void __libc_init(long *stack, void (*at_exit)(void), int (*start)(int, char **, char **), const void *lists) {
  (void)at_exit, (void)lists;
  __libc_start_main(start, (int)stack[0], (char **)(stack + 1), 0, 0, 0, stack);
  __builtin_trap();
}
#endif
