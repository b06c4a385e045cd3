#include "handwritten.hpp"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <new>

#include "spin.hpp"

namespace stick {

namespace {

constexpr std::size_t kBlock = 2048;  // floats that pass through the first cache

// The part of `count` floats that is block `b` of `size`, in whole lines but for the last.
std::size_t boundary(std::size_t count, int size, int b) {
    const auto parts = static_cast<std::size_t>(size), at = static_cast<std::size_t>(b);
    return b == size ? count : count / kLine * at / parts * kLine;
}

void wake(std::atomic<std::uint32_t>& bell) {
    bell.fetch_add(1);
    syscall(SYS_futex, &bell, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

}  // namespace

void Rank::publish(std::atomic<std::uint64_t>& number, std::uint64_t value) {
    number.store(value, std::memory_order_release);
    if (choices_.fence) std::atomic_thread_fence(std::memory_order_seq_cst);
    else asm volatile("" ::: "memory");
    for (int peer = 0; peer < size_; ++peer)
        if (peer != rank_ && all_[peer].asleep.load(std::memory_order_relaxed)) wake(all_[peer].bell);
}

void Rank::wait(const std::atomic<std::uint64_t>& number, std::uint64_t value) {
    auto there = [&] { return number.load(std::memory_order_acquire) >= value; };
    for (std::int32_t turn = 0; turn < choices_.spins; ++turn) {
        if (there()) return;
        relax();
    }
    for (std::int32_t turn = 0; turn < choices_.yields; ++turn) {
        if (there()) return;
        sched_yield();
    }
    while (!there()) {
        const std::uint32_t bell = own_.bell.load();
        own_.asleep.store(1);
        if (!choices_.fence) syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
        const timespec nap{0, 50'000'000};
        if (!there()) syscall(SYS_futex, &own_.bell, FUTEX_WAIT, bell, &nap, nullptr, 0);
        own_.asleep.store(0);
    }
}

void Rank::all_reduce(const float* input, float* output, std::size_t count) {
    if (count <= kTiny) tiny(input, output, count);
    else if (count * sizeof(float) <= static_cast<std::size_t>(choices_.one_shot)) one_shot(input, output, count);
    else two_shot(input, output, count);
}

// The payload rides in the line of its number. Four lines in turn: a line is used again when all have answered later ones.
void Rank::tiny(const float* input, float* output, std::size_t count) {
    const std::uint64_t number = ++small_;
    Small& mine = own_.small[number % 4];
    for (std::size_t i = 0; i < count; ++i) mine.payload[i] = input[i];
    publish(mine.number, number);
    float total[kTiny];
    for (int peer = 0; peer < size_; ++peer) {
        const Small& line = all_[peer].small[number % 4];
        if (peer != rank_) wait(line.number, number);
        for (std::size_t i = 0; i < count; ++i) total[i] = peer == 0 ? line.payload[i] : total[i] + line.payload[i];
    }
    for (std::size_t i = 0; i < count; ++i) output[i] = total[i];
}

// Everybody shows everything, chunk by chunk, and reduces all. With a chunk `ahead` a slot is used again 2 + 2 ahead
// chunks later: by then what this rank has seen of the others tells that they are through with it.
void Rank::one_shot(const float* input, float* output, std::size_t count) {
    const std::size_t chunk = static_cast<std::size_t>(choices_.one_shot_chunk) / sizeof(float);
    const std::size_t slots = Shared::kSlots / sizeof(float) / chunk;
    const std::size_t chunks = (count + chunk - 1) / chunk;
    const std::size_t ahead = chunks > 1 ? static_cast<std::size_t>(choices_.ahead) : 0;
    const bool bypass = count * sizeof(float) >= static_cast<std::size_t>(choices_.bypass_out);
    const std::uint64_t base = staged_;
    for (std::size_t turn = 0; turn < chunks + ahead; ++turn) {
        if (turn < chunks) {
            const std::size_t at = turn * chunk;
            float* slot = own_.shot + (base + turn) % slots * chunk;
            copy(slot, input + at, std::min(chunk, count - at), choices_.bypass_stage != 0);
            if (choices_.bypass_stage) settle();
            publish(own_.staged.number, ++staged_);
        }
        if (turn < ahead) continue;
        const std::size_t now = turn - ahead, at = now * chunk;
        wait_all([](Shared& peer) -> auto& { return peer.staged.number; }, base + now + 1);
        const float* sources[kMost];
        for (int peer = 0; peer < size_; ++peer)
            sources[peer] = peer == rank_ ? input + at : all_[peer].shot + (base + now) % slots * chunk;
        reduce(output + at, nullptr, sources, std::min(chunk, count - at), bypass);
    }
}

void Rank::reduce(float* output, float* slot, const float* const* sources, std::size_t count, bool bypass) {
    if (slot == nullptr) return bypass ? sum<true>(output, nullptr, sources, size_, count)
                                       : sum<false>(output, nullptr, sources, size_, count);
    if (choices_.twins == 1) return bypass ? sum<true, true>(output, slot, sources, size_, count)
                                           : sum<false, true>(output, slot, sources, size_, count);
    alignas(64) float block[kBlock];
    for (std::size_t at = 0; at < count; at += kBlock) {
        const std::size_t length = std::min(kBlock, count - at);
        const float* here[kMost];
        for (int k = 0; k < size_; ++k) here[k] = sources[k] + at;
        float* through = bypass ? block : output + at;
        sum<false>(through, nullptr, here, size_, length);
        copy(slot + at, through, length, choices_.bypass_gather != 0);
        if (bypass) copy(output + at, through, length, true);
    }
}

namespace {

// How a buffer is shown chunk by chunk: of every rank's block `chunks` in turn, each in one of `slots` slots of `room`
// elements.
struct Cut {
    Cut(std::size_t count, int size, const Choices& choices) : slots(2 * static_cast<std::size_t>(choices.ahead) + 1) {
        const std::size_t block = boundary(count, size, size) - boundary(count, size, size - 1);  // the largest
        const std::size_t wanted = (block / static_cast<std::size_t>(choices.pieces) + kLine) / kLine * kLine;
        room = std::min(static_cast<std::size_t>(choices.chunk),
                        Shared::kSlots / (slots * static_cast<std::size_t>(size)) / 4096 * 4096) / sizeof(float);
        chunk = std::clamp(wanted, std::size_t{1024}, room);
        chunks = (block + chunk - 1) / chunk;
    }
    std::size_t slots, room, chunk, chunks;
};

}  // namespace

// Reduce-scatter and all-gather, chunk by chunk. In a turn a rank shows a chunk of every peer's block, reduces one of its
// own block that the others showed `ahead` turns ago, and takes what they reduced `ahead` turns before. A slot is used
// again 2 ahead + 1 chunks later, when what was waited for tells that all are through with it.
void Rank::two_shot(const float* input, float* output, std::size_t count) {
    const auto size = static_cast<std::size_t>(size_), ahead = static_cast<std::size_t>(choices_.ahead);
    const auto [slots, room, chunk, chunks] = Cut(count, size_, choices_);
    const bool bypass = count * sizeof(float) >= static_cast<std::size_t>(choices_.bypass_out);
    const std::uint64_t base = staged_, gathered = gathered_;
    auto span = [&](int b, std::size_t index, std::size_t& at) {
        at = boundary(count, size_, b) + index * chunk;
        const std::size_t end = boundary(count, size_, b + 1);
        return at >= end ? 0 : std::min(chunk, end - at);
    };
    auto stage = [&](Shared& of, int b, std::size_t index) {
        return of.stage + ((base + index) % slots * size + static_cast<std::size_t>(b)) * room;
    };
    auto gather = [&](Shared& of, std::size_t index) { return of.gather + (gathered + index) % slots * room; };
    std::size_t at = 0;
    for (std::size_t turn = 0; turn < chunks + 2 * ahead; ++turn) {
        if (turn < chunks) {
            for (int step = 1; step < size_; ++step) {
                const int b = (rank_ + step) % size_;
                const std::size_t length = span(b, turn, at);
                copy(stage(own_, b, turn), input + at, length, choices_.bypass_stage != 0);
            }
            if (choices_.bypass_stage) settle();
            publish(own_.staged.number, ++staged_);
        }
        if (turn >= ahead && turn - ahead < chunks) {
            const std::size_t now = turn - ahead, length = span(rank_, now, at);
            wait_all([](Shared& peer) -> auto& { return peer.staged.number; }, base + now + 1);
            const float* sources[kMost];
            for (int peer = 0; peer < size_; ++peer)
                sources[peer] = peer == rank_ ? input + at : stage(all_[peer], rank_, now);
            reduce(output + at, gather(own_, now), sources, length, bypass);
            if (choices_.bypass_gather) settle();
            publish(own_.gathered.number, ++gathered_);
        }
        if (turn < 2 * ahead) continue;
        const std::size_t now = turn - 2 * ahead;
        for (int step = 1; step < size_; ++step) {
            const int peer = (rank_ + step) % size_;
            const std::size_t length = span(peer, now, at);
            wait(all_[peer].gathered.number, gathered + now + 1);
            copy(output + at, gather(all_[peer], now), length, bypass, choices_.copy);
        }
    }
}

// Inputs and outputs lie in memory that all ranks have at the same address: everybody reduces its block into all outputs.
void Rank::zero_copy(const float* input, float* output, std::size_t count) {
    own_.input = input;
    own_.output = output;
    publish(own_.here.number, ++met_);
    wait_all([](Shared& peer) -> auto& { return peer.here.number; }, met_);
    const bool bypass = count * sizeof(float) >= static_cast<std::size_t>(choices_.bypass_out);
    const std::size_t begin = boundary(count, size_, rank_), end = boundary(count, size_, rank_ + 1);
    alignas(64) float block[kBlock];
    for (std::size_t at = begin; at < end; at += kBlock) {
        const std::size_t length = std::min(kBlock, end - at);
        const float* sources[kMost];
        for (int peer = 0; peer < size_; ++peer) sources[peer] = all_[peer].input + at;
        sum<false>(block, nullptr, sources, size_, length);
        for (int step = 0; step < size_; ++step)
            copy(all_[(rank_ + step) % size_].output + at, block, length, bypass);
    }
    if (bypass) settle();
    publish(own_.done.number, met_);
    wait_all([](Shared& peer) -> auto& { return peer.done.number; }, met_);
}

}  // namespace stick

extern "C" {

#define STICK_SHOWN [[gnu::visibility("default")]]

STICK_SHOWN std::size_t stick_bytes(int size) { return sizeof(stick::Shared) * static_cast<std::size_t>(size); }

STICK_SHOWN void* stick_join(void* memory, int rank, int size, const stick::Choices* choices) {
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
    return new (std::nothrow) stick::Rank(static_cast<stick::Shared*>(memory), rank, size, *choices);
}

STICK_SHOWN void stick_choose(void* rank, const stick::Choices* choices) {
    static_cast<stick::Rank*>(rank)->choose(*choices);
}

STICK_SHOWN void stick_leave(void* rank) { delete static_cast<stick::Rank*>(rank); }

STICK_SHOWN void stick_all_reduce(void* rank, const float* input, float* output, std::size_t count, int times) {
    for (int time = 0; time < times; ++time) static_cast<stick::Rank*>(rank)->all_reduce(input, output, count);
}

STICK_SHOWN void stick_zero_copy(void* rank, const float* input, float* output, std::size_t count, int times) {
    for (int time = 0; time < times; ++time) static_cast<stick::Rank*>(rank)->zero_copy(input, output, count);
}

}
