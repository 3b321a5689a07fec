// rc_version, rc_isa, threads and names.
#include "capi/guarded.h"
#include "capi/names.h"
#include "kernels/select.h"
#include "runtime/thread_pool.h"

using namespace resnetcore::capi;

const char* rc_version(void) { return RESNETCORE_VERSION; }

const char* rc_isa(void) {
    return guarded_value<const char*>(nullptr, [] { return resnetcore::current_isa().name.c_str(); });
}

rc_status rc_set_num_threads(int threads) {
    return guarded([&] { resnetcore::set_num_threads(threads); });
}

int rc_get_num_threads(void) {
    return guarded_value(-1, [] { return resnetcore::threads_of_process(); });
}

const char* rc_activation_name(rc_activation activation) { return name_of(activation, activation_names); }
