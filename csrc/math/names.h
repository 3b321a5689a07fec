// Names of the types in a list, for the host: Python's strings, error messages and tests all come from here.
#pragma once

#include <string_view>

#include "math/functions.h"

namespace resnetcore {

template <class... Types>
const char* type_name(int index, TypeList<Types...>) {
    constexpr const char* names[] = {Types::name...};
    return names[index];
}

// Index of a name in a list, or −1.
template <class... Types>
int find_type(std::string_view name, TypeList<Types...> list) {
    for (int i = 0; i < static_cast<int>(sizeof...(Types)); ++i)
        if (name == type_name(i, list)) return i;
    return -1;
}

}  // namespace resnetcore
