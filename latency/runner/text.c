#include "text.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void give_up(const char *format, ...) {
  char line[1024];
  va_list values;
  va_start(values, format);
  vsnprintf(line, sizeof line, format, values);
  va_end(values);
  dprintf(2, "runner: %s\n", line);
  _exit(2);
}

void *room_for(size_t bytes) {
  void *memory = calloc(1, bytes ? bytes : 1);
  if (!memory) give_up("out of memory: %zu bytes wanted", bytes);
  return memory;
}

static void grow(Text *text, size_t more) {
  if (text->length + more <= text->room) return;
  text->room = text->room * 2 + more + 4096;
  text->bytes = realloc(text->bytes, text->room);
  if (!text->bytes) give_up("out of memory: %zu bytes wanted", text->room);
}

static void add_values(Text *text, const char *format, va_list values) {
  va_list again;
  va_copy(again, values);
  int length = vsnprintf(NULL, 0, format, again);
  va_end(again);
  grow(text, (size_t)length + 1);
  vsnprintf(text->bytes + text->length, (size_t)length + 1, format, values);
  text->length += (size_t)length;
}

void add(Text *text, const char *format, ...) {
  va_list values;
  va_start(values, format);
  add_values(text, format, values);
  va_end(values);
}

char *printed(const char *format, ...) {
  Text text = {0};
  va_list values;
  va_start(values, format);
  add_values(&text, format, values);
  va_end(values);
  return text.bytes;
}

void add_bytes(Text *text, const void *bytes, size_t count) {
  grow(text, count + 1);
  memcpy(text->bytes + text->length, bytes, count);
  text->length += count;
  text->bytes[text->length] = 0;
}

void add_json(Text *text, const char *string) {
  add(text, "\"");
  for (const unsigned char *at = (const unsigned char *)string; *at; at++) {
    if (*at == '"' || *at == '\\') add(text, "\\%c", *at);
    else if (*at < 32) add(text, "\\u%04x", *at);
    else add_bytes(text, at, 1);
  }
  add(text, "\"");
}

/* FIPS 180-4 */
static const uint32_t ROUND_CONSTANTS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turned(uint32_t word, int by) { return word >> by | word << (32 - by); }

static void hash_block(uint32_t state[8], const unsigned char *block) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 64; i++)
    w[i] = w[i - 16] + (turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
           (turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10);
  memcpy(s, state, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t e = turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25), a = turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22);
    uint32_t first = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + ROUND_CONSTANTS[i] + w[i];
    uint32_t second = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += first;
    s[0] = first + second;
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}

void sha256(const void *bytes, size_t count, char hex[65]) {
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  unsigned char tail[128] = {0};
  size_t whole = count / 64 * 64, rest = count - whole, padded = rest < 56 ? 64 : 128;
  for (size_t at = 0; at < whole; at += 64) hash_block(state, (const unsigned char *)bytes + at);
  memcpy(tail, (const unsigned char *)bytes + whole, rest);
  tail[rest] = 0x80;
  for (int i = 0; i < 8; i++) tail[padded - 1 - (size_t)i] = (unsigned char)((uint64_t)count * 8 >> (8 * i));
  for (size_t at = 0; at < padded; at += 64) hash_block(state, tail + at);
  for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", (unsigned)state[i]);
}

long long file_size(const char *path) {
  int file = open(path, O_RDONLY);
  if (file < 0) return -1;
  long long size = lseek(file, 0, SEEK_END);
  close(file);
  return size;
}

unsigned char *read_file(const char *path, size_t *count) {
  long long size = file_size(path);
  int file = size < 0 ? -1 : open(path, O_RDONLY);
  if (file < 0) return NULL;
  unsigned char *bytes = room_for((size_t)size);
  size_t done = 0;
  for (long got; done < (size_t)size && (got = read(file, bytes + done, (size_t)size - done)) > 0;) done += (size_t)got;
  close(file);
  *count = done;
  return bytes;
}

/* errno lies behind a function whose name differs between the C libraries, and one binary is to run on musl's headers with any. */
static int last_error(void) {
  int *(*place)(void) = (int *(*)(void))dlsym(NULL, "__errno");
  if (!place) place = (int *(*)(void))dlsym(NULL, "__errno_location");
  return place ? *place() : -1;
}

const char *reason_for(int error) { return error > 0 ? strerror(error) : "unknown reason"; }

int write_file(const char *path, const Text *text) {
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0) return last_error();
  for (size_t done = 0; done < text->length;) {
    long wrote = write(file, text->bytes + done, text->length - done);
    if (wrote <= 0) return last_error();
    done += (size_t)wrote;
  }
  return close(file) ? last_error() : 0;
}
