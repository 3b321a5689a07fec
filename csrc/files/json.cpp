#include "files/json.h"

#include <charconv>
#include <cstdio>

#include "base/error.h"

namespace resnetcore {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string& to, std::uint32_t code) {
    const auto add = [&](std::uint32_t byte) { to += static_cast<char>(byte); };
    const auto follow = [&](int shift) { add(0x80 | (code >> shift & 0x3f)); };
    if (code < 0x80) return add(code);
    if (code < 0x800)
        add(0xc0 | code >> 6);
    else if (code < 0x10000)
        add(0xe0 | code >> 12), follow(6);
    else
        add(0xf0 | code >> 18), follow(12), follow(6);
    follow(0);
}

// The bytes of one well-formed character (Unicode 15, table 3-7), 0 where there is none.
std::size_t character_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
    const int first = byte(0);
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return 0;
    const std::size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    // What is left out are longer spellings than need be, surrogates, and numbers above 10FFFF.
    const int low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const int high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (byte(1) < low || byte(1) > high) return 0;
    for (std::size_t i = 2; i < length; ++i)
        if (byte(i) < 0x80 || byte(i) > 0xbf) return 0;
    return length;
}

}  // namespace

std::string shown(std::string_view text, std::size_t most) {
    if (text.size() <= most) return "'" + std::string(text) + "'";
    while (most > 0 && (text[most] & 0xc0) == 0x80) --most;
    return "'" + std::string(text.substr(0, most)) + "…'";
}

std::string JsonCursor::quoted(const std::string& text) { return shown(text); }

void JsonCursor::fail(const std::string& problem) const {
    throw CheckpointError(problem + ", got " + shown(text_.substr(at_), 40) + " at byte " + std::to_string(at_));
}

void JsonCursor::skip_blanks() {
    const std::size_t next = text_.find_first_not_of(" \t\n\r", at_);
    at_ = next == std::string_view::npos ? text_.size() : next;
}

bool JsonCursor::accept(char character) {
    skip_blanks();
    const bool found = at_ < text_.size() && text_[at_] == character;
    at_ += found;
    return found;
}

void JsonCursor::expect(char character, const std::string& problem) {
    if (!accept(character)) fail(problem);
}

bool JsonCursor::word(std::string_view letters) {
    skip_blanks();
    const bool found = text_.substr(at_, letters.size()) == letters;
    if (found) at_ += letters.size();
    return found;
}

void JsonCursor::finish(const std::string& what) {
    skip_blanks();
    if (at_ != text_.size()) fail("nothing but blanks may follow " + what);
}

std::string JsonCursor::string(const std::string& what) {
    expect('"', what + " must be a string");
    std::string result;
    for (;;) {
        if (at_ == text_.size()) fail(what + " must end with '\"'");
        const char c = text_[at_];
        if (static_cast<unsigned char>(c) < 0x20) fail(what + " must hold no control character");
        ++at_;
        if (c == '"') return result;
        if (c == '\\')
            escape(result, what);
        else
            result += c;
    }
}

void JsonCursor::escape(std::string& to, const std::string& what) {
    constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (const std::size_t which = letters.find(c); which != std::string_view::npos) {
        ++at_;
        to += meanings[which];
        return;
    }
    if (c != 'u') fail(what + " must hold no unknown escape");
    ++at_;
    std::uint32_t code = hexadecimal(what);
    const auto is_half = [](std::uint32_t value, std::uint32_t first) { return value >> 10 == first >> 10; };
    if (is_half(code, 0xd800) && text_.substr(at_, 2) == "\\u") {
        at_ += 2;
        const std::uint32_t low = hexadecimal(what);
        if (!is_half(low, 0xdc00)) fail(what + " must hold no half of a surrogate pair");
        code = 0x10000 + ((code & 0x3ff) << 10 | (low & 0x3ff));
    } else if (is_half(code, 0xd800) || is_half(code, 0xdc00)) {
        fail(what + " must hold no half of a surrogate pair");
    }
    append_utf8(to, code);
}

std::uint32_t JsonCursor::hexadecimal(const std::string& what) {
    std::uint32_t value = 0;
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() != 4 || error != std::errc() || end != digits.data() + 4)
        fail(what + " must have four hexadecimal digits after \\u");
    at_ += 4;
    return value;
}

std::uint64_t JsonCursor::integer(const std::string& what) {
    skip_blanks();
    const std::size_t length = number_length();
    const char* begin = text_.data() + at_;
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(begin, begin + length, value);
    if (length == 0 || error != std::errc() || end != begin + length)
        fail(what + " must be an integer from 0 to 2**64 - 1");
    at_ += length;
    return value;
}

double JsonCursor::number(const std::string& what) {
    skip_blanks();
    const std::size_t length = number_length();
    double value = 0;
    const char* begin = text_.data() + at_;
    if (length == 0 || std::from_chars(begin, begin + length, value).ec != std::errc())
        fail(what + " must be a finite number");
    at_ += length;
    return value;
}

bool JsonCursor::boolean(const std::string& what) {
    if (word("true")) return true;
    if (!word("false")) fail(what + " must be true or false");
    return false;
}

std::size_t JsonCursor::number_length() const {
    std::size_t i = at_;
    const auto here = [&] { return i < text_.size() ? text_[i] : '\0'; };
    const auto digits = [&] {
        const std::size_t first = i;
        while (is_digit(here())) ++i;
        return i > first;
    };
    if (here() == '-') ++i;
    if (here() == '0')
        ++i;
    else if (!digits())
        return 0;
    if (here() == '.') {
        ++i;
        if (!digits()) return 0;
    }
    if (here() == 'e' || here() == 'E') {
        ++i;
        if (here() == '+' || here() == '-') ++i;
        if (!digits()) return 0;
    }
    return i - at_;
}

std::size_t find_invalid_utf8(std::string_view text) {
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t length = character_length(text.substr(i));
        if (length == 0) return i;
        i += length;
    }
    return std::string_view::npos;
}

std::string json_string(std::string_view text) {
    constexpr std::string_view meanings = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
    std::string result = "\"";
    for (const char c : text) {
        if (const std::size_t which = meanings.find(c); which != std::string_view::npos) {
            result += '\\';
            result += letters[which];
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escaped[7];
            std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
            result += escaped;
        } else {
            result += c;
        }
    }
    return result + '"';
}

}  // namespace resnetcore
