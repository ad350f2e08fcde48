# shellcheck shell=bash
# Sourced by the other scripts: finds the CUDA toolkit, or says what to do and stops.
# Exports CUDA_HOME, which CMake reads; the compiler is $CUDA_HOME/bin/nvcc.
find_toolkit() {
    local dir
    for dir in "${CUDA_HOME:-}" "$(dirname "$(dirname "$(command -v nvcc || echo /none/bin/nvcc)")")" \
        /usr/local/cuda /opt/cuda; do
        if [ -n "$dir" ] && [ -x "$dir/bin/nvcc" ]; then
            export CUDA_HOME=$dir
            return
        fi
    done
    cat >&2 <<'TEXT'
The CUDA toolkit was not found: no nvcc in $CUDA_HOME/bin, in PATH, or in /usr/local/cuda/bin.
TFR needs its headers and, to build CUDA programs, its compiler; no GPU and no driver are needed.
Install CUDA 13 from NVIDIA (developer.nvidia.com/cuda-downloads), or, if it is somewhere else:
    CUDA_HOME=/path/to/cuda scripts/quickstart
TEXT
    exit 1
}
