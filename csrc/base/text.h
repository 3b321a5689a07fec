// How messages write what came.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <vector>

namespace resnetcore {

// As Python writes a tuple.
inline std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::string result = "(";
    for (std::size_t i = 0; i < shape.size(); ++i) result += (i ? ", " : "") + std::to_string(shape[i]);
    return result + (shape.size() == 1 ? ",)" : ")");
}

// As few digits as tell the number.
inline std::string number_text(double value) {
    if (value != value) return "nan";
    char text[32];
    return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace resnetcore
