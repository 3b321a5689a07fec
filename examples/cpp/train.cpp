// Goes on training a saved network of 2 inputs and 1 output on x₀·x₁ with Adam, saves it, and prints what it predicts
// for the same points: train NETWORK RESULT [DEVICE]
#include <cstdio>

#include "resnetcore.hpp"

int main(int argc, char** argv) try {
    if (argc != 3 && argc != 4) throw std::invalid_argument("usage: train NETWORK RESULT [DEVICE]");
    rc::Matrix<float> x(64, 2), y(64, 1);
    for (int i = 0; i < 64; ++i) {  // an 8×8 grid on [−7/8, 7/8]²
        x(i, 0) = static_cast<float>(i % 8 * 2 - 7) / 8;
        x(i, 1) = static_cast<float>(i / 8 * 2 - 7) / 8;
        y(i, 0) = x(i, 0) * x(i, 1);
    }

    rc::Network network = rc::Network::load(argv[1]);
    if (argc == 4) network = network.to(rc::find_device(argv[3]));
    rc::Trainer trainer(network, rc_training_defaults(RC_MSE, RC_ADAM));
    for (int step = 0; step < 100; ++step) std::printf("%.17g\n", trainer.step(x, y, 0.01));
    network.save(argv[2]);

    const rc::Matrix<float> out = network.predict(x);
    for (int i = 0; i < 64; ++i) std::printf("%.9g\n", out(i, 0));
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
