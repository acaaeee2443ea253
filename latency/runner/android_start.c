/* The start of a program on Android's C library, built without the NDK: its __libc_init calls main and exits with the result. */
typedef void Hook(void);
typedef struct { Hook **before, **first, **last; } Hooks;

extern int main(int, char **, char **);
extern void __libc_init(void *raw, void (*on_exit)(void), int (*start)(int, char **, char **), const Hooks *hooks)
    __attribute__((noreturn));

/* This program has no constructors. Each list begins with -1 and ends with 0, as the NDK's crtbegin has it. */
static Hook *lists[3][2] = {{(Hook *)-1, 0}, {(Hook *)-1, 0}, {(Hook *)-1, 0}};

__attribute__((used, noreturn)) static void start(void *raw) {
  static Hooks hooks;
  hooks.before = lists[0], hooks.first = lists[1], hooks.last = lists[2];
  __libc_init(raw, 0, main, &hooks);
}

#if defined(__aarch64__)
#define NOTE "%note"
__asm__(".globl _start\n.type _start,%function\n_start:\n  mov x29,#0\n  mov x30,#0\n  mov x0,sp\n  b start\n");
#else
#define NOTE "@note"
__asm__(".globl _start\n.type _start,@function\n_start:\n  xor %rbp,%rbp\n  mov %rsp,%rdi\n  and $-16,%rsp\n  call start\n");
#endif
/* Android's linker wants to know for which API level a program was made: 24. */
__asm__(".section .note.android.ident,\"a\"," NOTE "\n"
        ".balign 4\n.4byte 8\n.4byte 4\n.4byte 1\n.ascii \"Android\\0\"\n.4byte 24\n.previous\n");
