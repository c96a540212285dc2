# The inner loops of the CPU kernels, compiled for several instruction sets of which one is chosen at
# run time (ops/cpu/simd/kernels.h). A file's own options stand behind the target's: -march here is
# the one that counts, whatever TENON_NATIVE says.
set(simd ${PROJECT_SOURCE_DIR}/ops/cpu/simd)
# What is joined into one rounding the source says itself.
set(simd_options -ffp-contract=off)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set_source_files_properties(${simd}/kernels.cpp PROPERTIES COMPILE_DEFINITIONS TENON_SIMD_X86)
  set_source_files_properties(${simd}/portable.cpp PROPERTIES
                              COMPILE_OPTIONS "${simd_options};-march=x86-64")
  set_source_files_properties(${simd}/avx2.cpp PROPERTIES
                              COMPILE_OPTIONS "${simd_options};-march=x86-64-v3")
  set_source_files_properties(
    ${simd}/avx512.cpp
    PROPERTIES COMPILE_OPTIONS "${simd_options};-march=x86-64-v4;-mprefer-vector-width=512")
else()
  set_source_files_properties(${simd}/portable.cpp PROPERTIES COMPILE_OPTIONS "${simd_options}")
  set_source_files_properties(${simd}/avx2.cpp ${simd}/avx512.cpp PROPERTIES HEADER_FILE_ONLY ON)
endif()
