# find_package(instruct): the target instruct::instruct, and one target a layer (instruct::train, instruct::metrics, ...).
include(CMakeFindDependencyMacro)
list(PREPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")
find_dependency(InstructLibraries)
list(POP_FRONT CMAKE_MODULE_PATH)
include("${CMAKE_CURRENT_LIST_DIR}/instructTargets.cmake")
