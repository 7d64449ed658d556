"""Numbers of the paper, for the columns "paper (Gemma 2B, MATH)": another model, task
and scale, shown as a faint reference and never compared with.

Read from the vector figures of arXiv:2410.08146v1 (Setlur et al. 2024), for its 2B base.
"""

COLUMN = "paper (Gemma 2B, MATH)"
N = (2, 4, 8, 16, 32, 64, 128)


def along_n(*values):
    return dict(zip(N, values, strict=True))


# Fig. 4, its prover being Bo4 of the base
ACCURACY = {
    "ORM": along_n(0.116, 0.155, 0.174, 0.191, 0.203, 0.202, 0.198),
    "PAV": along_n(0.149, 0.199, 0.224, 0.253, 0.272, 0.281, 0.282),
    "Pass@N": along_n(0.147, 0.190, 0.250, 0.302, 0.358, 0.402, 0.449),
}
# Fig. 5b
PROVERS = {
    "Bo2(base)": along_n(0.136, 0.188, 0.223, 0.242, 0.251, 0.257, 0.263),
    "Bo4(base)": ACCURACY["PAV"],
    "Bo8(base)": along_n(0.144, 0.202, 0.219, 0.235, 0.251, 0.267, 0.261),
    "Bo16(base)": along_n(0.118, 0.159, 0.178, 0.198, 0.205, 0.211, 0.216),
    "Bo32(base)": along_n(0.114, 0.153, 0.171, 0.190, 0.200, 0.205, 0.206),
}
# Fig. 6a: Pass@N of the final beam
BEAM_PASS_AT_N = {
    "Q": along_n(0.174, 0.223, 0.278, 0.325, 0.375, 0.422, 0.452),
    "PAV": along_n(0.224, 0.263, 0.315, 0.352, 0.398, 0.442, 0.471),
}
# Fig. 7a: final accuracy
FINAL = {"SFT": 0.123, "RFT": 0.157, "orm": 0.190, "pav": 0.258}
# Fig. 8a
PASS_AT_N = {
    "SFT": ACCURACY["Pass@N"],
    "RFT": along_n(0.178, 0.214, 0.255, 0.289, 0.331, 0.387, 0.421),
    "orm": along_n(0.203, 0.258, 0.295, 0.339, 0.370, 0.395, 0.419),
    "pav": along_n(0.274, 0.328, 0.369, 0.404, 0.438, 0.469, 0.505),
}
# Fig. 6b, of its 9B base and a beam of 128: accuracy by the size of the training data,
# as multiples of the smallest (64k), and the ratio n_mc / n_cov
LABEL_SIZES = (1, 2, 4, 8, 16)
LABEL_RATIOS = {
    f"ratio {ratio}": dict(zip(LABEL_SIZES, accuracy, strict=True))
    for ratio, accuracy in {
        2: (0.301, 0.346, 0.389, 0.413, 0.434),
        4: (0.283, 0.322, 0.373, 0.412, 0.441),
        8: (0.262, 0.325, 0.381, 0.433, 0.478),
        16: (0.241, 0.319, 0.389, 0.455, 0.509),
        32: (0.235, 0.298, 0.369, 0.425, 0.485),
    }.items()
}
# Fig. 11, the same. What it calls random seed traces is the line of ratio 16 in Fig. 6b,
# number by number, also where another ratio is better.
FIRST_PIT = {
    "first pit": dict(
        zip(LABEL_SIZES, (0.275, 0.368, 0.431, 0.484, 0.519), strict=True)
    ),
    "ratio 16": LABEL_RATIOS["ratio 16"],
}

# The didactic experiment, of the same task as configs/planted.py: these are compared.
# Fig. 3a: accuracy along the iterations, the prover being mu_10
PLANTED_ITERATIONS = tuple(range(0, 3_600, 200))
PLANTED_ACCURACY = {
    "pav": (0.0034, 0.0002, 0.834, 0.9969, *[0.992] * 14),
    "outcome": (0.0054, *[0.0] * 17),
}
# Fig. 3b: accuracy averaged over the iterations, by the prover's gamma 1, 2 .. 20
PLANTED_AVERAGE = dict(
    enumerate(
        (
            *(0.006, 0.005, 0.035, 0.063, 0.158, 0.334, 0.571, 0.769, 0.874, 0.928),
            *(0.937, 0.930, 0.822, 0.531, 0.301, 0.174, 0.065, 0.043, 0.030, 0.005),
        ),
        start=1,
    )
)
# Fig. 3c: Pass@N at iteration 100
PLANTED_N = (2, 4, 8, 16, 32, 64, 128, 256)
PLANTED_PASS_AT_N = {
    "pav": (0.005, 0.049, 0.086, 0.123, 0.170, 0.212, 0.231, 0.243),
    "outcome": (0.005, 0.008, 0.017, 0.038, 0.052, 0.063, 0.067, 0.070),
    "initial": (0.005, 0.016, 0.028, 0.052, 0.075, 0.082, 0.097, 0.102),
}
