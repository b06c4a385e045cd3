#include "region.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <stdexcept>

#include "futex.hpp"

namespace collx {

namespace {

constexpr std::uint64_t kBudget = 8ull << 20;  // bytes of shared memory per rank and communicator
constexpr std::uint64_t kCached = 2ull << 20;  // bytes of a rank's slots that the caches bear with
constexpr std::uint64_t kHot = 1ull << 20;     // bytes of those of them that payloads for one receiver use
constexpr std::uint64_t kLargestSlot = 64 << 10;
constexpr std::uint32_t kFewestSlots = 2;  // as many as segments are in flight

std::size_t up(std::size_t value, std::size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

Layout::Layout(std::uint32_t ranks) : size(ranks) {
    // Large slots before many of them: a slot is the unit of pipelining, and a few in flight suffice. More of them let
    // go of the caches what lay in the others, but two ranks want some that their readers have done with long ago.
    collective = {kMostSlots, kMostSlots, kLargestSlot, 0, 0};
    mail = {4, 4, 16 << 10, 0, 0};
    const std::uint64_t lanes = std::max(ranks, 2u);
    while (collective.slots > kFewestSlots && lanes * collective.slots * collective.bytes > kCached)
        collective.slots /= 2;
    while (lanes * (collective.slots * collective.bytes + mail.slots * mail.bytes) > kBudget) {
        collective.bytes /= 2;
        mail.bytes = std::min(mail.bytes, collective.bytes / 4);
        if (mail.bytes < 64) throw std::invalid_argument("too many ranks for the shared memory of one host");
    }
    const auto hot = static_cast<std::uint32_t>(kHot / (lanes * collective.bytes));
    collective.few = std::clamp(hot, kFewestSlots, collective.slots);
    attempts_at = sizeof(Header) + ranks * sizeof(Acknowledged);
    std::size_t at = up(attempts_at + ranks * sizeof(Attempt), 4096);
    for (Channel* channel : {&collective, &mail}) {
        channel->lines_at = at;
        at = up(at + std::size_t{ranks} * channel->slots * sizeof(Line), 4096);
    }
    for (Channel* channel : {&collective, &mail}) {
        channel->payload_at = at;
        at += std::size_t{ranks} * channel->slots * channel->bytes;
    }
    heap_at = up(at, 64 << 10);
}

Keeper::Keeper(Header& header) : header_(header) {
    std::random_device chance;
    for (std::uint64_t& word : secret_) word = std::uint64_t{chance()} << 32 | chance();
    header.sign = {reinterpret_cast<std::uintptr_t>(&secret_), {secret_[0], secret_[1]}};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    pthread_t thread{};
    const int failed = pthread_create(&thread, &attributes, &Keeper::main, this);
    pthread_attr_destroy(&attributes);
    if (failed != 0) throw std::runtime_error("could not start the thread that watches over this rank's life");
    thread_ = thread;
    while (phase_.load(std::memory_order_acquire) == 0) futex_wait(phase_, 0, -1);
}

void* Keeper::main(void* self) {
    auto& keeper = *static_cast<Keeper*>(self);
    Header& header = keeper.header_;
    robust_list_head list{};
    auto* entry = reinterpret_cast<robust_list*>(&header.robust_next);
    list.list.next = entry;
    entry->next = &list.list;
    list.futex_offset = reinterpret_cast<char*>(&header.life) - reinterpret_cast<char*>(entry);
    header.life.store(static_cast<std::uint32_t>(syscall(SYS_gettid)), std::memory_order_release);
    syscall(SYS_set_robust_list, &list, sizeof list);
    keeper.phase_.store(1, std::memory_order_release);
    futex_wake(keeper.phase_);
    while (keeper.phase_.load(std::memory_order_acquire) == 1) futex_wait(keeper.phase_, 1, -1);
    header.life.store(0, std::memory_order_release);
    syscall(SYS_set_robust_list, nullptr, sizeof list);  // `list` ends here, the thread a little later
    return nullptr;
}

void Keeper::release() {
    if (thread_ == 0) return;
    phase_.store(2, std::memory_order_release);
    futex_wake(phase_);
    pthread_join(thread_, nullptr);
    thread_ = 0;
}

}  // namespace collx
