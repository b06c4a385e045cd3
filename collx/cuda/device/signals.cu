// The signals of spin mode, and counts of what graphs repeat.

// Words of 64 bits, anywhere in mapped memory, that only grow while somebody waits for them. A wait is given up when the
// word at `abort` is not 0, and `limit` nanoseconds after it began; then the word at `status` is set to 1, and nothing is
// signalled or waited for any more where that is so. 0 where there is none.
template <int nwords>
struct Signals {
    u64 value, abort, limit, status, count;
    u64 words[nwords - 5];
};

INLINE u64 now() {
#ifdef __CUDA_ARCH__
    u64 nanoseconds;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(nanoseconds));
    return nanoseconds;
#else
    return host_now();
#endif
}

// Lets other threads of a host run; a GPU's do.
INLINE void pause() {
#ifndef __CUDA_ARCH__
    host_pause();
#endif
}

INLINE u64 acquired(u64 address) {
#ifdef __CUDA_ARCH__
    u64 value;
    asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
    return value;
#else
    return __atomic_load_n(reinterpret_cast<const u64*>(address), __ATOMIC_ACQUIRE);
#endif
}

INLINE void released(u64 address, u64 value) {
#ifdef __CUDA_ARCH__
    asm volatile("st.release.sys.global.u64 [%0], %1;" :: "l"(address), "l"(value) : "memory");
#else
    __atomic_store_n(reinterpret_cast<u64*>(address), value, __ATOMIC_RELEASE);
#endif
}

// Whoever acquires the value sees what this stream's kernels wrote before: the fence is for all of that.
template <int nwords>
INLINE void signal(const Signals<nwords>& signals) {
    if (signals.status && acquired(signals.status)) return;
#ifdef __CUDA_ARCH__
    __threadfence_system();
#endif
    for (u32 i = threadIdx.x; i < signals.count; i += blockDim.x) released(signals.words[i], signals.value);
}

// The clock, and the word of the host, which lies across PCIe, are looked at seldom.
template <int nwords>
INLINE void wait(const Signals<nwords>& signals) {
    if (signals.status && acquired(signals.status)) return;
    const u64 begun = signals.limit ? now() : 0;
    for (u32 i = threadIdx.x; i < signals.count; i += blockDim.x)
        for (u32 turn = 1; acquired(signals.words[i]) < signals.value; ++turn) {
            if (turn % 256) continue;
            pause();
            const bool aborted = signals.abort && acquired(signals.abort);
            if (aborted || (signals.limit && now() - begun > signals.limit)) {
                if (signals.status) released(signals.status, 1);
                return;
            }
        }
}

// For whoever wants to know how often a stream has come by here: each word has this one writer.
template <int nwords>
INLINE void count(const Signals<nwords>& signals) {
    for (u32 i = threadIdx.x; i < signals.count; i += blockDim.x)
        released(signals.words[i], acquired(signals.words[i]) + signals.value);
}
