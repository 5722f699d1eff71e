// Commits every transaction and acknowledges every message; with `count` in the config it counts each under its delivery key.
//
// Written against the canonical ABI itself, as what `wit-bindgen c` makes is: it needs a C compiler for wasm32 and nothing else.
#include <stddef.h>
#include <stdint.h>

struct text {
    const char *at;
    size_t bytes;
};

__attribute__((import_module("vouch:plugin/host@0.1.0"), import_name("config")))
void config(const char *name, size_t bytes, uint32_t *found);
__attribute__((import_module("vouch:plugin/state@0.1.0"), import_name("add")))
void add(const char *key, size_t bytes, int64_t delta, uint64_t *sum);

// An instance lives for one call, so memory is handed out and never taken back.
extern unsigned char __heap_base;
static unsigned char *next = &__heap_base;

__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t had, size_t align, size_t bytes) {
    (void)old, (void)had;
    next = (unsigned char *)(((uintptr_t)next + align - 1) & -align);
    unsigned char *made = next;
    next += bytes;
    while ((uintptr_t)next > __builtin_wasm_memory_size(0) * 65536)
        if (__builtin_wasm_memory_grow(0, 1) == (size_t)-1) __builtin_trap();
    return made;
}

// A result whose first case is the answer's first case: `commit`, or `ack`.
static uint64_t answer[4];

__attribute__((export_name("vouch:plugin/checkback@0.1.0#check")))
void *check(const void *half) {
    (void)half;
    return answer;
}

// A delivery begins with its key.
__attribute__((export_name("vouch:plugin/consumer@0.1.0#consume")))
void *consume(const struct text *delivery_key) {
    uint32_t found[3];
    config("count", 5, found);
    if (found[0] & 0xff) {
        uint64_t sum[2];
        add(delivery_key->at, delivery_key->bytes, 1, sum);
        if (sum[0] & 0xff) __builtin_trap();
    }
    return answer;
}
