/* A driver whose GPU is this machine's memory: every function that compress/worker/cuda.py calls, in its form. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int cuInit(unsigned flags) {
    const char *code = getenv("FAKE_CUINIT");
    return code ? atoi(code) : (int)flags;
}
int cuDeviceGetCount(int *count) { const char *n = getenv("FAKE_GPUS"); *count = n ? atoi(n) : 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = 7; return number; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Fake GPU", length); return device != 7; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 7; return device != 7; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return device != 7; }
int cuCtxSetCurrent(void *context) { return context != (void *)1; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)5; return flags != 1; }
int cuStreamSynchronize(void *stream) { return stream != (void *)5; }
int cuMemAlloc_v2(uint64_t *address, size_t size) {
    if (size > (size_t)1 << 40) return 2;
    *address = (uint64_t)malloc(size);
    return 0;
}
int cuMemFree_v2(uint64_t address) { free((void *)address); return 0; }
int cuMemAllocHost_v2(void **address, size_t size) { *address = malloc(size); return 0; }
int cuMemFreeHost(void *address) { free(address); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    memcpy((void *)to, from, size);
    return stream != (void *)5;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
    memcpy(to, (void *)from, size);
    return stream != (void *)5;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == 100 ? "no CUDA-capable device is detected" : code == 2 ? "out of memory" : "unspecified";
    return 0;
}
