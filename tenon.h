// All of Tenon.
#pragma once

#include "tenon/core/autograd.h"
#include "tenon/core/device.h"
#include "tenon/core/dtype.h"
#include "tenon/core/error.h"
#include "tenon/core/factories.h"
#include "tenon/core/gradcheck.h"
#include "tenon/core/memory.h"
#include "tenon/core/op.h"
#include "tenon/core/parallel.h"
#include "tenon/core/random.h"
#include "tenon/core/shape.h"
#include "tenon/core/stream.h"
#include "tenon/core/structural.h"
#include "tenon/core/tensor.h"
#include "tenon/nn/nn.h"
#include "tenon/ops/ops.h"
