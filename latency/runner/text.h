/* Growing text, JSON strings, SHA-256 and whole files. */
#ifndef TEXT_H
#define TEXT_H
#include <stddef.h>
#include <stdint.h>

typedef struct { char *bytes; size_t length, room; } Text;

void give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn)); /* one line on stderr, exit code 2 */
void *room_for(size_t bytes);                                                           /* zeroed memory, never NULL */
void add(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void add_bytes(Text *text, const void *bytes, size_t count);
void add_json(Text *text, const char *string); /* in quotes, escaped; bytes that are no ASCII stay as they are */
char *printed(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sha256(const void *bytes, size_t count, char hex[65]);
unsigned char *read_file(const char *path, size_t *count); /* NULL if it cannot be read */
long long file_size(const char *path);                     /* -1 if there is none */
int write_file(const char *path, const Text *text);        /* 0, or the reason as errno has it */
const char *reason_for(int error);
#endif
