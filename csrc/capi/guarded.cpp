#include "capi/guarded.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <system_error>

#include "base/error.h"

namespace resnetcore::capi {
namespace {

// Its memory is there already when there is none left to say so.
thread_local char last_error[2048] = "";

rc_status keep(rc_status status, const char* text) noexcept {
    std::size_t length = std::min(std::strlen(text), sizeof last_error - 1);
    // Not in the middle of a character.
    while (length > 0 && text[length] != '\0' && (text[length] & 0xc0) == 0x80) --length;
    std::memcpy(last_error, text, length);
    last_error[length] = '\0';
    return status;
}

}  // namespace

rc_status report() noexcept {
    try {
        throw;
    } catch (const ShapeError& e) {
        return keep(RC_SHAPE_ERROR, e.what());
    } catch (const DTypeError& e) {
        return keep(RC_DTYPE_ERROR, e.what());
    } catch (const DeviceError& e) {
        return keep(RC_DEVICE_ERROR, e.what());
    } catch (const CheckpointError& e) {
        return keep(RC_CHECKPOINT_ERROR, e.what());
    } catch (const BuildFeatureError& e) {
        return keep(RC_BUILD_FEATURE_ERROR, e.what());
    } catch (const ValueError& e) {
        return keep(RC_VALUE_ERROR, e.what());
    } catch (const NonFiniteError& e) {
        return keep(RC_NON_FINITE, e.what());
    } catch (const OutOfMemoryError& e) {
        return keep(RC_MEMORY_ERROR, e.what());
    } catch (const std::bad_alloc&) {
        return keep(RC_MEMORY_ERROR, "resnetcore: not enough memory; a smaller network or a smaller batch needs less");
    } catch (const std::length_error&) {
        return keep(RC_MEMORY_ERROR, "resnetcore: more elements than an array can have");
    } catch (const std::system_error& e) {
        return keep(RC_OS_ERROR, e.what());
    } catch (const std::exception& e) {
        return keep(RC_INTERNAL_ERROR, e.what());
    } catch (...) {
        return keep(RC_INTERNAL_ERROR, "resnetcore: an exception of an unknown type");
    }
}

void refuse_null(const char* operation, const char* argument) {
    throw ValueError(std::string(operation) + ": " + argument + " must not be NULL");
}

}  // namespace resnetcore::capi

const char* rc_last_error(void) { return resnetcore::capi::last_error; }

const char* rc_status_name(rc_status status) {
    constexpr const char* names[] = {
        "RC_OK",           "RC_VALUE_ERROR",      "RC_SHAPE_ERROR",         "RC_DTYPE_ERROR",
        "RC_DEVICE_ERROR", "RC_CHECKPOINT_ERROR", "RC_BUILD_FEATURE_ERROR", "RC_NON_FINITE",
        "RC_OS_ERROR",     "RC_MEMORY_ERROR",     "RC_INTERNAL_ERROR"};
    const bool known = status >= 0 && status < static_cast<rc_status>(sizeof names / sizeof *names);
    return known ? names[status] : "an unknown code";
}
