#include "tenon/graph/layout.h"

#include <algorithm>
#include <numeric>

namespace tenon::graph::detail {
namespace {

constexpr double kColumnGap = 20;
constexpr double kLayerGap = 34;
constexpr int kSweeps = 8;

using Neighbours = std::vector<std::vector<std::size_t>>;

/// Longest path from the top; then boxes without a link into them sink to just above their reader.
void assign_layers(Layout& layout) {
  for (std::size_t box = 0; box < layout.boxes.size(); ++box) {
    for (const Link& link : layout.links) {
      if (link.to != box) continue;
      const std::size_t below = layout.boxes[link.from].layer + 1;
      layout.boxes[box].layer = std::max(layout.boxes[box].layer, below);
    }
  }
  std::vector<bool> has_source(layout.boxes.size(), false);
  for (const Link& link : layout.links) has_source[link.to] = true;
  for (std::size_t box = 0; box < layout.boxes.size(); ++box) {
    if (has_source[box]) continue;
    std::size_t first_reader = static_cast<std::size_t>(-1);
    for (const Link& link : layout.links) {
      if (link.from == box) first_reader = std::min(first_reader, layout.boxes[link.to].layer);
    }
    if (first_reader != static_cast<std::size_t>(-1)) layout.boxes[box].layer = first_reader - 1;
  }
}

/// Gives every link that spans more than one layer a bend in each layer between.
void add_bends(Layout& layout) {
  for (Link& link : layout.links) {
    const std::size_t last = layout.boxes[link.to].layer;
    for (std::size_t layer = layout.boxes[link.from].layer + 1; layer < last; ++layer) {
      link.bends.push_back(layout.boxes.size());
      Box bend;
      bend.layer = layer;
      layout.boxes.push_back(bend);
    }
  }
}

/// The direct neighbours of each box through bends, first those above, then those below.
std::pair<Neighbours, Neighbours> neighbours(const Layout& layout) {
  Neighbours above(layout.boxes.size());
  Neighbours below(layout.boxes.size());
  for (const Link& link : layout.links) {
    std::vector<std::size_t> path = {link.from};
    path.insert(path.end(), link.bends.begin(), link.bends.end());
    path.push_back(link.to);
    for (std::size_t i = 1; i < path.size(); ++i) {
      below[path[i - 1]].push_back(path[i]);
      above[path[i]].push_back(path[i - 1]);
    }
  }
  return {above, below};
}

double mean_of(const std::vector<std::size_t>& near, const std::vector<double>& position,
               double otherwise) {
  if (near.empty()) return otherwise;
  double sum = 0;
  for (const std::size_t box : near) sum += position[box];
  return sum / static_cast<double>(near.size());
}

/// Moves the boxes of one layer toward where they want to be, without overlap and in their order.
void settle(Layout& layout, const std::vector<std::size_t>& layer,
            const std::vector<double>& wanted) {
  const auto distance = [&](std::size_t left, std::size_t right) {
    const Box& a = layout.boxes[left];
    return (a.width + layout.boxes[right].width) / 2 + a.label + kColumnGap;
  };
  std::vector<double> from_left(layer.size());
  std::vector<double> from_right(layer.size());
  for (std::size_t i = 0; i < layer.size(); ++i) {
    from_left[i] = wanted[layer[i]];
    if (i > 0) {
      from_left[i] = std::max(from_left[i], from_left[i - 1] + distance(layer[i - 1], layer[i]));
    }
  }
  for (std::size_t i = layer.size(); i-- > 0;) {
    from_right[i] = wanted[layer[i]];
    if (i + 1 < layer.size()) {
      from_right[i] = std::min(from_right[i], from_right[i + 1] - distance(layer[i], layer[i + 1]));
    }
  }
  // Both keep the gaps, so their mean does too, and it favours neither side.
  for (std::size_t i = 0; i < layer.size(); ++i) {
    layout.boxes[layer[i]].x = (from_left[i] + from_right[i]) / 2;
  }
}

void assign_columns(Layout& layout, std::vector<std::vector<std::size_t>>& layers) {
  const std::pair<Neighbours, Neighbours> near_boxes = neighbours(layout);
  std::vector<double> order(layout.boxes.size());
  for (const auto& layer : layers) {
    for (std::size_t i = 0; i < layer.size(); ++i) order[layer[i]] = static_cast<double>(i);
  }
  const auto visit = [&](int sweep, const auto& body) {
    const bool down = sweep % 2 == 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      body(layers[down ? i : layers.size() - 1 - i], down ? near_boxes.first : near_boxes.second);
    }
  };
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    visit(sweep, [&](std::vector<std::size_t>& layer, const Neighbours& near) {
      std::vector<double> key(layout.boxes.size());
      for (const std::size_t box : layer) key[box] = mean_of(near[box], order, order[box]);
      std::stable_sort(layer.begin(), layer.end(),
                       [&](std::size_t a, std::size_t b) { return key[a] < key[b]; });
      for (std::size_t i = 0; i < layer.size(); ++i) order[layer[i]] = static_cast<double>(i);
    });
  }
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    visit(sweep, [&](std::vector<std::size_t>& layer, const Neighbours& near) {
      std::vector<double> position(layout.boxes.size());
      for (std::size_t i = 0; i < position.size(); ++i) position[i] = layout.boxes[i].x;
      std::vector<double> wanted(layout.boxes.size());
      for (const std::size_t box : layer) wanted[box] = mean_of(near[box], position, position[box]);
      settle(layout, layer, wanted);
    });
  }
}

}  // namespace

Layout place(std::vector<Box> boxes, std::vector<Link> links) {
  Layout layout{std::move(boxes), std::move(links), 0, 0};
  assign_layers(layout);
  add_bends(layout);
  std::size_t layer_count = 0;
  for (const Box& box : layout.boxes) layer_count = std::max(layer_count, box.layer + 1);
  std::vector<std::vector<std::size_t>> layers(layer_count);
  for (std::size_t box = 0; box < layout.boxes.size(); ++box) {
    layers[layout.boxes[box].layer].push_back(box);
  }
  assign_columns(layout, layers);
  double left = 0;
  double right = 0;
  for (const Box& box : layout.boxes) {
    left = std::min(left, box.x - box.width / 2);
    right = std::max(right, box.x + box.width / 2);
  }
  double y = 0;
  for (const auto& layer : layers) {
    double tallest = 0;
    for (const std::size_t box : layer) tallest = std::max(tallest, layout.boxes[box].height);
    for (const std::size_t box : layer) {
      Box& placed = layout.boxes[box];
      placed.x -= left;
      placed.y = y + (tallest - placed.height) / 2;
    }
    y += tallest + kLayerGap;
  }
  layout.width = right - left;
  layout.height = layers.empty() ? 0 : y - kLayerGap;
  return layout;
}

}  // namespace tenon::graph::detail
