# What the library, the tests and the examples are compiled with.

# Warnings are errors with the compilers that this version was checked with; a newer compiler's new
# warning shall not stop a user.
set(checked_compiler OFF)
if((CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION MATCHES "^12\\.")
   OR (CMAKE_CXX_COMPILER_ID STREQUAL Clang AND CMAKE_CXX_COMPILER_VERSION MATCHES "^14\\."))
  set(checked_compiler ${PROJECT_IS_TOP_LEVEL})
endif()
option(TENON_WERROR "Treat compiler warnings as errors" ${checked_compiler})

function(tenon_compile_options target)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;$<$<BOOL:${TENON_WERROR}>:-Werror>>")
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC 12 warns of uninitialised variables inside its own AVX-512 headers (GCC bug 105593).
    target_compile_options(
      ${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
  endif()
  if(TENON_SANITIZE)
    # Optimised a little, with assertions (Eigen's too) and line numbers in the reports.
    target_compile_options(${target} PRIVATE -fsanitize=${TENON_SANITIZE} -fno-sanitize-recover=all
                                             -fno-omit-frame-pointer -O1 -g1 -UNDEBUG)
    target_link_options(${target} PUBLIC -fsanitize=${TENON_SANITIZE})
  endif()
endfunction()
