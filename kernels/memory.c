// A freestanding module has no C library, yet the compiler may ask for these. Each is one WebAssembly instruction.
#include "module.h"

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    __asm__ volatile("local.get %0\nlocal.get %1\nlocal.get %2\nmemory.copy 0, 0" ::"r"(to), "r"(from), "r"(size) : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    __asm__ volatile("local.get %0\nlocal.get %1\nlocal.get %2\nmemory.copy 0, 0" ::"r"(to), "r"(from), "r"(size) : "memory");
    return to;
}

void *memset(void *to, int value, size_t size) {
    __asm__ volatile("local.get %0\nlocal.get %1\nlocal.get %2\nmemory.fill 0" ::"r"(to), "r"(value), "r"(size) : "memory");
    return to;
}
