#include "record.hpp"

#include <algorithm>
#include <bit>
#include <string_view>
#include <type_traits>
#include <utility>

namespace collx {

namespace {

constexpr auto acquire = std::memory_order_acquire;

// Adds "NAME differs: HERE here, THERE on rank PEER"; false where nothing differs.
template <typename Value>
bool add(std::string& told, const char* name, const Value& here, const Value& there, std::uint32_t peer) {
    if (here == there) return false;
    const auto text = [](const Value& value) {
        if constexpr (std::is_arithmetic_v<Value>)
            return std::to_string(value);
        else
            return value.empty() ? std::string("none") : std::string(value);
    };
    if (!told.empty()) told += "; ";
    told += std::string(name) + " differs: " + text(here) + " here, " + text(there) + " on rank " +
            std::to_string(peer);
    return true;
}

}  // namespace

// The same words as collx/agreement.py's.
static std::string difference(const Traits& here, const Traits& there, std::uint32_t peer) {
    std::string told;
    using Text = std::string_view;
    if (add(told, "collective", Text(here.collective), Text(there.collective), peer))
        return told + "; all ranks must make the same calls in the same order";
    int count = 0;
    const char* remedy = "the same arguments";
    const auto one = [&](const char* name, const auto& mine, const auto& theirs) {
        if (!add(told, name, mine, theirs, peer)) return;
        remedy = ++count == 1 ? name : "arguments";
    };
    one("dtype", Text(here.dtype), Text(there.dtype));
    one("op", Text(here.op), Text(there.op));
    one("root", here.root, there.root);
    one("count", Text(here.count), Text(there.count));
    one("algorithm", Text(here.algorithm), Text(there.algorithm));
    if (count == 0) {
        told = std::string("plan differs from that of rank ") + std::to_string(peer) + " in what its texts (" +
               here.count + ") do not show";
        remedy = "counts";
    }
    return told + "; all ranks must pass the same " + remedy;
}

std::optional<Recorded> recorded(const Flight& flight, std::uint64_t sequence) {
    const Record& record = flight.records[sequence % kRecords];
    if (sequence == 0 || record.sequence.load(acquire) != sequence) return {};
    Recorded copy{sequence, record.chain.load(acquire), record.progress.load(acquire), record.started.load(acquire),
                  record.ended.load(acquire), {}};
    std::array<std::uint64_t, Traits::kWords> words{};
    for (std::size_t at = 0; at < words.size(); ++at) words[at] = record.traits[at].load(acquire);
    copy.traits = std::bit_cast<Traits>(words);
    if (record.sequence.load(acquire) != sequence) return {};
    return copy;
}

std::uint64_t newest(const Flight& flight) {
    const std::uint64_t low = flight.arrival.load(acquire) >> 32;
    const std::uint64_t full = flight.records[low % kRecords].sequence.load(acquire);
    return (full & 0xffffffffu) == low ? full : low;
}

Recorder::Recorder(std::uint32_t rank, std::vector<Flight*> flights, const std::vector<bool>& far)
    : rank_(rank), flights_(std::move(flights)), own_(*flights_[rank]), agreed_(flights_.size()),
      further_(flights_.size()) {
    for (std::size_t peer = 0; peer < far.size(); ++peer)
        if (far[peer]) further_[peer] = kFarAhead;
}

void Recorder::write(Record& record, const Traits& traits) {
    const auto words = std::bit_cast<std::array<std::uint64_t, Traits::kWords>>(traits);
    for (std::size_t at = 0; at < words.size(); ++at)
        record.traits[at].store(words[at], std::memory_order_release);
    record.fingerprint.store(traits.fingerprint, std::memory_order_release);
}

void Recorder::fail() {
    unblock();
    Record& record = current();
    if (sequence_ == 0 || record.progress.load(std::memory_order_relaxed) != Progress::under_way) return;
    record.ended.store(now(), std::memory_order_relaxed);
    record.progress.store(Progress::failed, std::memory_order_relaxed);
}

// Compares the calls until where both ranks have got. They are less than kHistory calls apart, as none of them ends a
// call before the other has come to the one before, or where it is far, to kFarAhead before that.
Match Recorder::compare(std::uint32_t peer) {
    const Flight& theirs = *flights_[peer];
    const std::uint64_t arrival = theirs.arrival.load(acquire);
    const auto ahead = static_cast<std::int32_t>(static_cast<std::uint32_t>(arrival >> 32) -
                                                 static_cast<std::uint32_t>(sequence_));
    const std::uint64_t both = sequence_ + static_cast<std::uint64_t>(std::int64_t{std::min(ahead, 0)});
    const Match found = suffices(both, peer) ? Match::same : Match::unknown;
    if (both == 0 || both + kHistory <= sequence_) return found;
    const auto chain = ahead <= 0 ? static_cast<std::uint32_t>(arrival) : theirs.chains[both % kHistory].load(acquire);
    if (own_.chains[both % kHistory].load(std::memory_order_relaxed) != chain) return Match::different;
    agreed_[peer] = both;
    return found;
}

int Recorder::differing() {
    if constexpr (!kChecked) return -1;
    for (std::uint32_t peer = 0; peer < flights_.size(); ++peer)
        if (peer != rank_ && compare(peer) == Match::different) return static_cast<int>(peer);
    return -1;
}

void Recorder::block(std::uint64_t call, int peer, std::uint32_t flags) {
    const std::uint64_t word = call << 32 | flags | static_cast<std::uint32_t>(peer + 1);
    const std::int64_t before = std::exchange(shown_, now());
    if (own_.blocked.load(std::memory_order_relaxed) != word) own_.since.store(shown_, std::memory_order_relaxed);
    own_.looked.store(before, std::memory_order_relaxed);
    own_.blocked.store(word, std::memory_order_release);
    blocked_ = true;
}

std::string Recorder::difference(std::uint32_t peer) const {
    const std::string me = "rank " + std::to_string(rank_), other = "rank " + std::to_string(peer);
    const std::uint64_t last = std::min(sequence_, newest(*flights_[peer]));
    for (std::uint64_t at = last > kRecords ? last - kRecords + 1 : 1; at <= last; ++at) {
        const auto mine = recorded(own_, at), theirs = recorded(*flights_[peer], at);
        if (!mine || !theirs || mine->traits.fingerprint == theirs->traits.fingerprint) continue;
        return me + " in " + mine->traits.collective + " #" + std::to_string(at) + ": " +
               collx::difference(mine->traits, theirs->traits, peer);
    }
    return {};
}

}  // namespace collx
