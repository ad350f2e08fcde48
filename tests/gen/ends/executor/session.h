/* What generated dispatch expects of the executor, for compiling the golden output by itself. */
struct tfr_cu;

struct tfr_session {
    const struct tfr_cu *cu;
};
