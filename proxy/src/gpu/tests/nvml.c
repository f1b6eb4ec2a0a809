// Plays the driver's library: three devices, the second of which tells nothing; what is free of the first is in a file.
#include <stdio.h>
#include <stdint.h>
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "said no"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 2) return 2;
    *device = (void *)(uintptr_t)(index + 1);
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, memory *info) {
    unsigned long long mib = 1 << 20, free = 4096;
    if (device == (void *)2) return 3;
    if (device == (void *)1) {
        FILE *file = fopen(FREE, "r");
        if (!file || fscanf(file, "%llu", &free) != 1) return 999;
        fclose(file);
    }
    info->total = 8192 * mib;
    info->reserved = 192 * mib;
    info->free = free * mib;
    info->used = (8000 - free) * mib;
    return 0;
}
