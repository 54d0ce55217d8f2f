/* Denormal numbers count as zeros between `fr_flush` and `fr_restore`, in the thread that calls them.
 *
 * States that fade away come to numbers below 1e-38, on which CPUs of many kinds compute up to a hundred times slower.
 */
#ifndef FASTRNN_DENORMALS_H
#define FASTRNN_DENORMALS_H

#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
static inline uint64_t fr_flush(void) {
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* results and arguments: FTZ, DAZ */
    return mode;
}
static inline void fr_restore(uint64_t mode) { _mm_setcsr((unsigned)mode); }
#elif defined(__aarch64__) && defined(__GNUC__)
static inline uint64_t fr_flush(void) {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | (UINT64_C(1) << 24))); /* FZ */
    return mode;
}
static inline void fr_restore(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
static inline uint64_t fr_flush(void) { return 0; }
static inline void fr_restore(uint64_t mode) { (void)mode; }
#endif

#endif
