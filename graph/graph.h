// All of tenon::graph.
#pragma once

#include "tenon/graph/compile.h"
#include "tenon/graph/executor.h"
#include "tenon/graph/ir.h"
#include "tenon/graph/passes.h"
#include "tenon/graph/pattern.h"
#include "tenon/graph/print.h"
#include "tenon/graph/report.h"
#include "tenon/graph/trace.h"
