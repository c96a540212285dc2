# The target kernel_report: registers, spills and shared memory of the fused kernels on several
# architectures, and how many blocks and warps of them an SM holds. It fails on a spill, and where a
# block does not fit. No GPU is needed.
find_package(Python3 3.9 COMPONENTS Interpreter QUIET)
if(NOT Python3_FOUND)
  return()
endif()
set(TENON_KERNEL_REPORT_ARCHS "80;89;90" CACHE STRING "Architectures that kernel_report compiles for")

# In the two steps that nvcc takes itself, because the PTX between them holds the launch bounds and
# the assembler says what a kernel uses.
file(GLOB sources CONFIGURE_DEPENDS ops/cuda/fused/*.cu)
set(directory ${PROJECT_BINARY_DIR}/kernel_report)
file(MAKE_DIRECTORY ${directory})
set(reports)
foreach(source ${sources})
  get_filename_component(name ${source} NAME_WE)
  set(archs ${TENON_KERNEL_REPORT_ARCHS})
  if(name MATCHES "_sm90_")
    # Warpgroup products are instructions of sm_90a alone.
    set(archs 90a)
    if(NOT "90" IN_LIST TENON_KERNEL_REPORT_ARCHS)
      set(archs)
    endif()
  endif()
  foreach(arch ${archs})
    set(base ${directory}/${name}.sm_${arch})
    add_custom_command(
      OUTPUT ${base}.ptx
      COMMAND ${CMAKE_CUDA_COMPILER} -ptx -arch=compute_${arch} -O3 -DNDEBUG -std=c++20
              --expt-relaxed-constexpr -DTENON_WITH_CUDA -I ${PROJECT_BINARY_DIR}/include
              -MD -MF ${base}.d -MT ${base}.ptx -o ${base}.ptx ${source}
      DEPENDS ${source}
      DEPFILE ${base}.d
      COMMENT "Compiling ${name} for compute_${arch}"
      VERBATIM)
    add_custom_command(
      OUTPUT ${base}.txt
      COMMAND ${CUDAToolkit_BIN_DIR}/ptxas -v -arch=sm_${arch} -o ${base}.cubin ${base}.ptx
              2> ${base}.txt
      DEPENDS ${base}.ptx
      COMMENT "Assembling ${name} for sm_${arch}"
      VERBATIM)
    list(APPEND reports ${base}.txt)
  endforeach()
endforeach()

# Dynamic shared memory is chosen when a kernel is launched. A program of this name, where there is
# one, prints a line for each configuration; kernel_report.py --help says what is in it.
set(options)
set(configurations)
if(TARGET kernel_configurations)
  add_custom_command(
    OUTPUT ${directory}/configurations
    COMMAND kernel_configurations > ${directory}/configurations
    DEPENDS kernel_configurations
    VERBATIM)
  set(configurations ${directory}/configurations)
  set(options --configurations ${configurations})
endif()
add_custom_target(
  kernel_report
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/examples/bench/kernel_report.py
          --json ${directory}/kernel_report.json ${options} ${reports}
  DEPENDS ${reports} ${configurations}
  VERBATIM)
