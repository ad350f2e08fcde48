/* The software GPU's memory: one reserved range of addresses (the arena) out of which cuMemAlloc,
 * module globals and cuMemAddressReserve are served.  A device address is a host address.  Every
 * access of a kernel is checked here: a byte is legal if its 4 KiB page is marked in `page`, or if
 * it lies in host memory that was allocated or registered with the driver. */
#ifndef TFR_SOFTGPU_DEVMEM_H
#define TFR_SOFTGPU_DEVMEM_H

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SOFT_PAGE_SHIFT = 12 };
enum { SOFT_PAGE_READ = 1, SOFT_PAGE_WRITE = 2 };

struct soft_mem {
    uint64_t base, len; /* the arena's addresses; fixed after soft_mem_init */
    const uint8_t
        *page; /* SOFT_PAGE_* per page of the arena; written under devmem's lock, read without */
};
extern struct soft_mem soft_mem;

/* Host memory known to the driver (cuMemHostAlloc, cuMemHostRegister).  Lock-free, any thread. */
bool soft_mem_host_ok(uint64_t addr, uint64_t len);

/* May a kernel touch [addr, addr+len)?  len is at most a vector of 16 bytes x 32 lanes: it spans at
 * most two pages of the arena. */
static inline bool soft_mem_ok(uint64_t addr, uint64_t len, unsigned int want)
{
    uint64_t at = addr - soft_mem.base;
    if (__builtin_expect(at < soft_mem.len, 1)) {
        uint64_t last = at + len - 1;
        return last < soft_mem.len && (soft_mem.page[at >> SOFT_PAGE_SHIFT] & want) == want &&
               (soft_mem.page[last >> SOFT_PAGE_SHIFT] & want) == want;
    }
    return soft_mem_host_ok(addr, len);
}

/* Once per process; capacity from TFR_SOFT_MEMORY (default 4g). */
CUresult soft_mem_init(void);

/* cuMemAlloc: 512-byte aligned (larger align honoured), zeroed only by the kernel's fresh pages.
 * Small allocations share pages; a freed page is unmarked when its last allocation goes. */
CUresult soft_mem_alloc(size_t len, size_t align, CUdeviceptr *addr_out);
CUresult soft_mem_free(CUdeviceptr addr);

#endif
