// JSON read by whoever knows what must come next, never by a general parser: such a one follows nesting to any depth,
// and can make a hundred million bytes of text into many times as much memory.
//
// Every function throws CheckpointError where the text goes on otherwise.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace resnetcore {

class JsonCursor {
public:
    // `text` is valid UTF-8 and outlives the cursor.
    explicit JsonCursor(std::string_view text) : text_(text) {}

    // Calls visit(key) for each key of an object, with the cursor on its value, which visit reads. No key comes twice.
    template <class Visit>
    void object(const std::string& what, Visit visit) {
        std::set<std::string> seen;
        expect('{', what + " must be an object");
        if (accept('}')) return;
        do {
            const std::string key = string("a name in " + what);
            if (!seen.insert(key).second) fail(what + " has " + quoted(key) + " twice");
            expect(':', "':' must follow the name " + quoted(key));
            visit(key);
        } while (accept(','));
        expect('}', "',' or '}' must follow a value in " + what);
    }

    // Calls visit() with the cursor on each value of an array.
    template <class Visit>
    void array(const std::string& what, Visit visit) {
        expect('[', what + " must be an array");
        if (accept(']')) return;
        do visit();
        while (accept(','));
        expect(']', "',' or ']' must follow a value in " + what);
    }

    std::string string(const std::string& what);
    std::uint64_t integer(const std::string& what);  // 0 to 2⁶⁴ − 1
    double number(const std::string& what);          // finite
    bool boolean(const std::string& what);
    // Whether `null` comes next; then the cursor is after it.
    bool null() { return word("null"); }
    // Only blanks may be left.
    void finish(const std::string& what);

    [[noreturn]] void fail(const std::string& problem) const;

private:
    void skip_blanks();
    bool accept(char character);
    void expect(char character, const std::string& problem);
    bool word(std::string_view letters);
    // The length of what matches the grammar of a number, 0 for none.
    std::size_t number_length() const;
    void escape(std::string& to, const std::string& what);
    std::uint32_t hexadecimal(const std::string& what);

    static std::string quoted(const std::string& text);

    std::string_view text_;
    std::size_t at_ = 0;
};

// Where the first byte lies that is not part of valid UTF-8, or npos.
std::size_t find_invalid_utf8(std::string_view text);

// In quotes, as Python's json.dumps(text, ensure_ascii=False) writes it.
std::string json_string(std::string_view text);

// As messages show what a file holds: in single quotes, of bounded length.
std::string shown(std::string_view text, std::size_t most = 64);

}  // namespace resnetcore
