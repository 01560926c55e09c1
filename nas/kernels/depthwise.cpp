// The gradient of the kernel of a depthwise convolution with stride 1, of images channels last, on the CPU; in float32
// and float64. (The convolution itself, and with it the gradient of the image, is fast in torch.)
//
// kernel[i, j, c] = sum over n, y, x of image[n, y + i * dilation - padding, x + j * dilation - padding, c] * gradient[n, y, x, c]
//
// A vector of channels at a time is packed side by side, so that it stays in the cache, and its sums in registers. Taps
// outside of the image are left out: nothing is padded.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

// Along one direction.
struct Axis {
  int64_t image, gradient, kernel, padding, dilation;

  int64_t shift(int64_t tap) const { return tap * dilation - padding; }
  // The places of the gradient, from the first up to the one behind the last, that a tap takes into the image.
  int64_t first(int64_t tap) const { return std::min(gradient, std::max<int64_t>(0, -shift(tap))); }
  int64_t last(int64_t tap) const { return std::max(first(tap), std::min(gradient, image - shift(tap))); }
};

template <typename T>
struct Vector {
  typedef T type __attribute__((vector_size(64)));
  static constexpr int64_t width = 64 / sizeof(T);
};

// `count` channels of every pixel, from one image; the rest of the vector is zero.
template <typename T>
void pack(const T* from, int64_t pixels, int64_t channels, int64_t count, typename Vector<T>::type* to) {
  if (count == Vector<T>::width) {
    for (int64_t p = 0; p < pixels; ++p) std::memcpy(to + p, from + p * channels, 64);
  } else {
    for (int64_t p = 0; p < pixels; ++p) {
      to[p] = typename Vector<T>::type{};
      std::memcpy(to + p, from + p * channels, count * sizeof(T));
    }
  }
}

// Add what `TAPS` taps of a row of the kernel find in one row, over the places where all of them are inside.
template <typename V, int TAPS>
void add_row(const V* image, const V* gradient, int64_t pixels, int64_t dilation, V* sums) {
  V even[TAPS], odd[TAPS] = {};  // two of each, since a sum waits for the one before
  for (int j = 0; j < TAPS; ++j) even[j] = sums[j];
  int64_t x = 0;
  for (; x + 1 < pixels; x += 2) {
    for (int j = 0; j < TAPS; ++j) even[j] += gradient[x] * image[x + j * dilation];
    for (int j = 0; j < TAPS; ++j) odd[j] += gradient[x + 1] * image[x + 1 + j * dilation];
  }
  if (x < pixels)
    for (int j = 0; j < TAPS; ++j) even[j] += gradient[x] * image[x + j * dilation];
  for (int j = 0; j < TAPS; ++j) sums[j] = even[j] + odd[j];
}

template <typename T>
void kernel_gradient(const T* image, const T* gradient, T* out, int64_t batch, int64_t channels, const Axis& rows, const Axis& columns) {
  using V = typename Vector<T>::type;
  const int64_t taps = columns.kernel, lanes = Vector<T>::width;
  const int64_t begin = columns.first(0), end = std::max(begin, columns.last(taps - 1));  // where all taps are inside
  at::parallel_for(0, (channels + lanes - 1) / lanes, 1, [&](int64_t from, int64_t to) {
    std::vector<V> packed(rows.image * columns.image), slopes(rows.gradient * columns.gradient), sums(rows.kernel * taps);
    for (int64_t c = from * lanes; c < std::min(channels, to * lanes); c += lanes) {
      const int64_t count = std::min(lanes, channels - c);
      std::fill(sums.begin(), sums.end(), V{});
      for (int64_t n = 0; n < batch; ++n) {
        pack(image + n * packed.size() * channels + c, packed.size(), channels, count, packed.data());
        pack(gradient + n * slopes.size() * channels + c, slopes.size(), channels, count, slopes.data());
        for (int64_t i = 0; i < rows.kernel; ++i) {
          V* found = &sums[i * taps];
          for (int64_t y = rows.first(i); y < rows.last(i); ++y) {
            const V* line = &packed[(y + rows.shift(i)) * columns.image];
            const V* slope = &slopes[y * columns.gradient];
            for (int64_t j = 0; j < taps; ++j) {  // the borders
              for (int64_t x = columns.first(j); x < std::min(begin, columns.last(j)); ++x) found[j] += slope[x] * line[x + columns.shift(j)];
              for (int64_t x = std::max(end, columns.first(j)); x < columns.last(j); ++x) found[j] += slope[x] * line[x + columns.shift(j)];
            }
            if (end == begin) continue;
            const V* first = line + begin + columns.shift(0);
            switch (taps) {
              case 3: add_row<V, 3>(first, slope + begin, end - begin, columns.dilation, found); break;
              case 5: add_row<V, 5>(first, slope + begin, end - begin, columns.dilation, found); break;
              case 7: add_row<V, 7>(first, slope + begin, end - begin, columns.dilation, found); break;
              default:
                for (int64_t j = 0; j < taps; ++j) add_row<V, 1>(first + j * columns.dilation, slope + begin, end - begin, 0, found + j);
            }
          }
        }
      }
      for (size_t tap = 0; tap < sums.size(); ++tap) std::memcpy(out + tap * channels + c, &sums[tap], count * sizeof(T));
    }
  });
}

// image (batch, channels, h, w) and gradient (batch, channels, h', w') to (channels, 1, kernel, kernel)
at::Tensor depthwise_kernel_gradient(const at::Tensor& image, const at::Tensor& gradient, at::IntArrayRef kernel, at::IntArrayRef padding, at::IntArrayRef dilation) {
  const auto x = image.contiguous(at::MemoryFormat::ChannelsLast), g = gradient.contiguous(at::MemoryFormat::ChannelsLast);
  auto axis = [&](int64_t d) { return Axis{x.size(2 + d), g.size(2 + d), kernel[d], padding[d], dilation[d]}; };
  const auto out = at::empty({kernel[0], kernel[1], x.size(1)}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "depthwise_kernel_gradient", [&] {
    kernel_gradient<scalar_t>(x.const_data_ptr<scalar_t>(), g.const_data_ptr<scalar_t>(), out.data_ptr<scalar_t>(), x.size(0), x.size(1), axis(0), axis(1));
  });
  return out.permute({2, 0, 1}).unsqueeze(1);
}

}  // namespace

TORCH_LIBRARY(nas, library) {
  library.def("depthwise_kernel_gradient(Tensor image, Tensor gradient, int[2] kernel, int[2] padding, int[2] dilation) -> Tensor");
}

TORCH_LIBRARY_IMPL(nas, CPU, library) { library.impl("depthwise_kernel_gradient", &depthwise_kernel_gradient); }
