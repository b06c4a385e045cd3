#include "control_frame.hpp"

namespace collx {

namespace {

// What is wrong with a head; nothing where it is right.
std::string fault(const ControlHead& head) {
    if (head.magic != ControlHead::kMagic) return "what is no frame of collx";
    if (head.version != ControlHead::kVersion)
        return "a frame of version " + std::to_string(head.version) + ", not " + std::to_string(ControlHead::kVersion);
    const auto length = body_length(head.kind);
    if (!length) return "a frame of unknown kind " + std::to_string(static_cast<int>(head.kind));
    if (head.length == *length) return {};
    return "a frame of kind " + std::to_string(static_cast<int>(head.kind)) + " with " + std::to_string(head.length) +
           " bytes, not " + std::to_string(*length);
}

}  // namespace

std::string ControlFrames::feed(std::span<const std::byte> bytes,
                                const std::function<bool(const ControlFrame&)>& take) {
    ControlFrame frame;
    while (!bytes.empty()) {
        const auto fill = [&](std::size_t wanted) {
            const std::size_t more = std::min(wanted - std::min(wanted, begun_.size()), bytes.size());
            begun_.insert(begun_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(more));
            bytes = bytes.subspan(more);
            return begun_.size() >= wanted;
        };
        if (!fill(sizeof frame.head)) break;
        std::memcpy(&frame.head, begun_.data(), sizeof frame.head);
        if (const std::string wrong = fault(frame.head); !wrong.empty()) return wrong;
        if (!fill(sizeof frame.head + frame.head.length)) break;
        std::memcpy(frame.body, begun_.data() + sizeof frame.head, frame.head.length);
        begun_.clear();
        if (!take(frame))
            return "a frame of kind " + std::to_string(static_cast<int>(frame.head.kind)) + " that makes no sense";
    }
    return {};
}

}  // namespace collx
