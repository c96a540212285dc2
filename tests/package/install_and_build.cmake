# Installs the build in ${BUILD} into a fresh prefix, then configures, builds and runs the project in
# ${SOURCE}, with the program ${QUICKSTART}, against that prefix alone.
set(root ${BUILD}/package_test)
file(REMOVE_RECURSE ${root})

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${root} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "failed: ${ARGN}")
  endif()
endfunction()

file(MAKE_DIRECTORY ${root}/build)
file(COPY ${QUICKSTART} DESTINATION ${root}/build)
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${root}/prefix)
run(${CMAKE_COMMAND} -S ${SOURCE} -B ${root}/build -G Ninja -DCMAKE_PREFIX_PATH=${root}/prefix
    -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER})
run(${CMAKE_COMMAND} --build ${root}/build)
run(${root}/build/user_program)
run(${root}/build/quickstart)
