// What every kernel file needs: the marks for exports, and the two names compilers call behind a program's back.
#ifndef GRIDSCHED_MODULE_H
#define GRIDSCHED_MODULE_H

#include <stddef.h>
#include <stdint.h>
#include <wasm_simd128.h>

// A function that hosts call by itself; all others are called through `run`.
#define EXPORT(name) __attribute__((export_name(#name))) name

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);

#endif
