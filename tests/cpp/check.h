// CHECK counts failures and says where; a test program returns their number.
#pragma once

#include <cstdio>

inline int failures = 0;

#define CHECK(condition, ...)                                           \
    do {                                                                \
        if (!(condition)) {                                             \
            std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            std::printf(__VA_ARGS__);                                   \
            std::printf("\n");                                          \
            ++failures;                                                 \
        }                                                               \
    } while (false)

inline int summary(const char* name) {
    std::printf("%s: %d failures\n", name, failures);
    return failures != 0;
}
