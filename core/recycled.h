// Memory for the small objects that every op makes: a tensor's body, its storage, a node of the
// tape. A chain of a thousand recorded ops frees thousands of them at once, more than malloc keeps
// at hand: it would merge them, give the pages back to the system, and fault them in again for the
// next chain. Internal to core.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace tenon::detail {

// GCC says it with the first, clang with the second.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kWithAddressSanitizer = true;
#elif defined(__has_feature)
inline constexpr bool kWithAddressSanitizer = __has_feature(address_sanitizer);
#else
inline constexpr bool kWithAddressSanitizer = false;
#endif

/// Blocks of `kBytes` that this thread freed, to be handed out again. Empty in builds with
/// AddressSanitizer, which finds uses of freed memory only in what was really freed.
template <std::size_t kBytes>
class FreeBlocks {
 public:
  static void* take() {
    Block* block = list.first;
    if (block == nullptr) return ::operator new(kBytes);
    list.first = block->next;
    --list.count;
    return block;
  }
  static void give(void* block) noexcept {
    if (list.count == kMost) {
      ::operator delete(block);
      return;
    }
    if (list.count == 0) (void)&at_exit;  // makes it, so that it ends with the thread
    list.first = new (block) Block{list.first};
    ++list.count;
  }

 private:
  static constexpr std::size_t kMost = kWithAddressSanitizer ? 0 : 4096;

  struct Block {
    Block* next;
  };
  /// Without a destructor: blocks may still be freed when the thread's other objects have ended.
  struct List {
    Block* first;
    std::size_t count;
  };
  /// Frees all, and lets nothing in from then on.
  struct Drain {
    ~Drain() {
      while (list.count > 0) ::operator delete(take());
      list.count = kMost;
    }
  };

  static_assert(kBytes >= sizeof(Block));
  static thread_local constinit inline List list{nullptr, 0};
  static thread_local inline Drain at_exit;
};

/// Allocates single objects from `FreeBlocks`.
template <class T>
struct RecyclingAllocator {
  using value_type = T;
  static_assert(alignof(T) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);

  RecyclingAllocator() = default;
  template <class Other>
  RecyclingAllocator(const RecyclingAllocator<Other>&) {}  // NOLINT(implicit): as allocators do

  T* allocate(std::size_t count) {
    return static_cast<T*>(count == 1 ? FreeBlocks<sizeof(T)>::take()
                                      : ::operator new(count * sizeof(T)));
  }
  void deallocate(T* data, std::size_t count) noexcept {
    if (count == 1) {
      FreeBlocks<sizeof(T)>::give(data);
    } else {
      ::operator delete(data);
    }
  }
  template <class Other>
  bool operator==(const RecyclingAllocator<Other>&) const {
    return true;
  }
};

/// `std::make_shared` in memory that is recycled.
template <class T, class... Arguments>
std::shared_ptr<T> make_recycled(Arguments&&... arguments) {
  return std::allocate_shared<T>(RecyclingAllocator<T>(), std::forward<Arguments>(arguments)...);
}

}  // namespace tenon::detail
