/* The operation table for this machine: x86-64-v3 where the processor has it, else the base one. */
#include "base/env.h"
#include "executor/softgpu/vm_ops.h"

#include <pthread.h>

static struct vm_isa table;

#define VM_FILL_V3(name)   vm_fill_##name##_v3(&table);
#define VM_FILL_BASE(name) vm_fill_##name##_base(&table);

static void fill(void)
{
#if defined(VM_WITH_V3)
    const char *base = tfr_env_str("TFR_SOFT_ISA"); /* "base": for tests of the other table */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2") && !(base && base[0] == 'b')) {
        VM_FILLERS(VM_FILL_V3)
        return;
    }
#endif
    VM_FILLERS(VM_FILL_BASE)
}

const struct vm_isa *vm_isa(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill);
    return &table;
}
