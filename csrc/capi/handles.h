// What is behind the handles of resnetcore.h.
#pragma once

#include <memory>
#include <variant>

#include "files/network_file.h"
#include "train/training.h"

struct rc_network {
    resnetcore::StoredNetwork stored;

    // Calls visit(Model<T>&).
    template <class Visit>
    decltype(auto) with(Visit&& visit) const {
        return stored.network.with(std::forward<Visit>(visit));
    }
};

struct rc_trainer {
    template <class T>
    using Owned = std::unique_ptr<resnetcore::Training<T>>;

    std::variant<Owned<float>, Owned<double>, Owned<resnetcore::bfloat16>, Owned<resnetcore::bfloat16x2>> training;
};
