// All ops.
#pragma once

#include "tenon/ops/activation.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/compare.h"
#include "tenon/ops/extremum.h"
#include "tenon/ops/gather.h"
#include "tenon/ops/join.h"
#include "tenon/ops/loss.h"
#include "tenon/ops/optimizer_step.h"
#include "tenon/ops/promotion.h"
#include "tenon/ops/reduce.h"
#include "tenon/ops/softmax.h"
#include "tenon/ops/unary.h"
#include "tenon/ops/where.h"
