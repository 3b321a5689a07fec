/* Goes on training a saved network on a small problem, and saves it: train NETWORK RESULT [DEVICE]
 *
 * The device is "cpu", "cuda" or a GPU's number as in "cuda:1".
 * The network has 2 inputs and 2 outputs. A point belongs to class 1 if its coordinates have the same sign. */
#include <stdio.h>
#include <stdlib.h>

#include "resnetcore.h"

enum { ROWS = 64, STEPS = 100 };

static void check(rc_status status) {
    if (status == RC_OK) return;
    fprintf(stderr, "%s: %s\n", rc_status_name(status), rc_last_error());
    exit(1);
}

int main(int argc, char** argv) {
    float points[ROWS][2];
    int64_t labels[ROWS];
    rc_matrix x = {points, ROWS, 2, 2, RC_FLOAT32, RC_CPU};
    rc_matrix y = {labels, ROWS, 1, 1, RC_INT64, RC_CPU};
    rc_network *loaded, *network;
    rc_trainer* trainer;
    rc_device device = RC_CPU;
    rc_training settings = rc_training_defaults(RC_CROSS_ENTROPY, RC_SGD);
    double loss = 0;
    int i;

    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: %s NETWORK RESULT [DEVICE]\n", argv[0]);
        return 2;
    }
    for (i = 0; i < ROWS; ++i) { /* an 8×8 grid on [−7/8, 7/8]² */
        points[i][0] = (float)(i % 8 * 2 - 7) / 8;
        points[i][1] = (float)(i / 8 * 2 - 7) / 8;
        labels[i] = points[i][0] * points[i][1] > 0;
    }

    check(rc_network_load(argv[1], &loaded));
    if (argc == 4) check(rc_find_device(argv[3], &device));
    check(rc_network_copy_to(loaded, device, &network));
    rc_network_free(loaded);
    settings.momentum = 0.9;
    check(rc_trainer_create(network, &settings, &trainer));
    for (i = 0; i < STEPS; ++i) {
        check(rc_trainer_step(trainer, &x, &y, NULL, 0.05, &loss));
        printf("%.17g\n", loss);
    }
    check(rc_network_save(network, argv[2]));
    rc_trainer_free(trainer);
    rc_network_free(network);
    return 0;
}
