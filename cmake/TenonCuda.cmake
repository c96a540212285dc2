# The CUDA backend: whether it is built, and with what. Sets TENON_WITH_CUDA.
set(TENON_CUDA AUTO CACHE STRING "CUDA backend: AUTO (when the toolkit and cuDNN are found), ON, OFF")
set_property(CACHE TENON_CUDA PROPERTY STRINGS AUTO ON OFF)
if(DEFINED ENV{TENON_CUDA_ARCHS})
  set(default_archs $ENV{TENON_CUDA_ARCHS})
else()
  set(default_archs "80-real;89-real;90")
endif()
set(TENON_CUDA_ARCHS ${default_archs} CACHE STRING
    "GPU architectures to compile for, as CMAKE_CUDA_ARCHITECTURES")

option(TENON_EVERY_LANE_ARRIVES
       "Kernels whose barriers compute-sanitizer's racecheck can follow" OFF)

set(TENON_WITH_CUDA OFF)
if(NOT TENON_CUDA STREQUAL OFF)
  set(quiet QUIET)
  if(NOT TENON_CUDA STREQUAL AUTO)
    set(quiet REQUIRED)
  endif()
  find_program(nvcc nvcc HINTS ENV CUDA_PATH PATHS /usr/local/cuda/bin)
  if(nvcc AND NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${nvcc} CACHE FILEPATH "")
  endif()
  find_package(CUDAToolkit 12.4 ${quiet})
  find_package(CUDNN 9.0 ${quiet})
  if(CUDAToolkit_FOUND AND CUDNN_FOUND AND nvcc)
    set(TENON_WITH_CUDA ON)
    set(CMAKE_CUDA_ARCHITECTURES ${TENON_CUDA_ARCHS})
    enable_language(CUDA)
    message(STATUS "Tenon: CUDA ${CUDAToolkit_VERSION}, cuDNN ${CUDNN_VERSION}, architectures "
                   "${TENON_CUDA_ARCHS}")
  elseif(NOT TENON_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "TENON_CUDA=${TENON_CUDA}: no nvcc found; put it on the PATH or set "
                        "CMAKE_CUDA_COMPILER")
  endif()
endif()
if(NOT TENON_WITH_CUDA)
  message(STATUS "Tenon: built for the CPU only (TENON_CUDA=${TENON_CUDA})")
endif()

# Adds the CUDA sources to `target`. The standard is given as a flag, because CMake before 3.26 does
# not know that nvcc has C++20.
function(tenon_add_cuda target)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS core/cuda/*.c* ops/cuda/*.c*)
  list(FILTER sources EXCLUDE REGEX "\\.cuh$")
  set(sm90_sources ${sources})
  list(FILTER sm90_sources INCLUDE REGEX "_sm90_")
  list(FILTER sources EXCLUDE REGEX "_sm90_")
  set(options -std=c++20 --expt-relaxed-constexpr $<$<BOOL:${TENON_WERROR}>:-Werror=all-warnings>
              $<$<BOOL:${TENON_EVERY_LANE_ARRIVES}>:-DTENON_EVERY_LANE_ARRIVES>)
  target_sources(${target} PRIVATE ${sources})
  target_compile_definitions(${target} PUBLIC TENON_WITH_CUDA)
  target_link_libraries(${target} PRIVATE CUDA::cudart_static CUDA::cublasLt CUDNN::cudnn)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${options}>")
  # Warpgroup products are instructions of sm_90a alone, so their files are compiled for nothing else.
  if(TENON_CUDA_ARCHS MATCHES "90" OR TENON_CUDA_ARCHS MATCHES "native|all")
    add_library(${target}_sm90 OBJECT ${sm90_sources})
    set_target_properties(${target}_sm90 PROPERTIES CUDA_ARCHITECTURES 90a-real
                                                    POSITION_INDEPENDENT_CODE ON)
    target_include_directories(${target}_sm90 PRIVATE ${PROJECT_BINARY_DIR}/include)
    target_compile_options(${target}_sm90 PRIVATE ${options})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_sm90>)
    target_compile_definitions(${target} PRIVATE TENON_WITH_SM90A)
  endif()
endfunction()
