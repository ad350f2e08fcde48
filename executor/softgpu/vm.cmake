# soft_vm: the PTX virtual machine (fatbin.c .. devrt.c), included by this folder's CMakeLists.txt.
# ops_*.c are compiled twice: for any processor of the architecture, and for x86-64-v3.
include(${CMAKE_CURRENT_LIST_DIR}/vm_files.cmake)
set(_soft_ops "")
foreach(op ${SOFT_VM_OPS})
  list(APPEND _soft_ops ${CMAKE_CURRENT_LIST_DIR}/ops_${op}.c)
endforeach()
# clang is asked to vectorise every loop and would complain about those it cannot
set(_soft_flags -O3 -ffp-contract=off -fno-trapping-math -fno-math-errno -fno-strict-aliasing
                $<$<C_COMPILER_ID:Clang>:-Wno-pass-failed>)

function(soft_vm_ops name isa)
  add_library(${name} OBJECT ${_soft_ops})
  tfr_target(${name})
  target_include_directories(${name} SYSTEM PRIVATE ${TFR_CUDA_INCLUDE})
  target_compile_definitions(${name} PRIVATE VM_ISA=${isa})
  # Not every loop vectorizes under clang, which warns of those that do not.
  target_compile_options(${name} PRIVATE ${_soft_flags} ${ARGN} $<$<C_COMPILER_ID:Clang>:-Wno-pass-failed>)
endfunction()

# rint has to obey the rounding mode: without SSE4.1 the compiler's own expansion does not
soft_vm_ops(soft_vm_base base -fno-builtin-rint -fno-builtin-rintf)
set(_soft_objects $<TARGET_OBJECTS:soft_vm_base>)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  soft_vm_ops(soft_vm_v3 v3 -march=x86-64-v3)
  list(APPEND _soft_objects $<TARGET_OBJECTS:soft_vm_v3>)
endif()

set(_soft_files "")
foreach(file ${SOFT_VM_FILES})
  list(APPEND _soft_files ${CMAKE_CURRENT_LIST_DIR}/${file})
endforeach()
add_library(soft_vm STATIC ${_soft_files} ${_soft_objects})
tfr_target(soft_vm)
target_include_directories(soft_vm SYSTEM PRIVATE ${TFR_CUDA_INCLUDE})
target_compile_options(soft_vm PRIVATE -fno-strict-aliasing)
if(TARGET soft_vm_v3)
  target_compile_definitions(soft_vm PRIVATE VM_WITH_V3)
endif()
target_link_libraries(soft_vm PUBLIC tfr_base Threads::Threads ${CMAKE_DL_LIBS} m)
