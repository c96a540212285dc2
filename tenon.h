// Everything: include this, or the parts you use.
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
#include "tenon/core/structural.h"
#include "tenon/core/tensor.h"
