#include "core/api/blob.h"

#include <cstring>
#include <new>
#include <vector>

#include "core/api/checks.h"
#include "core/api/halves.h"

namespace {

using tfprune::fail;
using tfprune::from_bfloat16;
using tfprune::from_float16;

constexpr char kMagic[9] = "TFPRCONV";
constexpr uint32_t kVersion = 1;

struct Header {
  char magic[8];
  uint32_t version, value_type;
  uint8_t key[16];
  tfp_conv conv;
  int64_t value_count, bias_count;
};
static_assert(sizeof(tfp_conv) == 13 * 8 + 2 * 4 && sizeof(Header) == 32 + 112 + 16,
              "the layout of a blob has no holes");

tfp_status read_header(const void* blob, int64_t bytes, Header* header) {
  if (blob == nullptr || bytes < static_cast<int64_t>(sizeof(Header)))
    return fail(TFP_INVALID, "Packed weights must have at least %zu bytes. Received: %lld.",
                sizeof(Header), static_cast<long long>(bytes));
  std::memcpy(header, blob, sizeof(Header));
  if (std::memcmp(header->magic, kMagic, 8) != 0)
    return fail(TFP_INVALID, "Packed weights must begin with the mark %s.", kMagic);
  if (header->version != kVersion)
    return fail(TFP_INVALID,
                "Packed weights must be of version %u. Received: %u; they were made by another "
                "version of tfprune.",
                kVersion, header->version);
  if (header->value_type > TFP_FLOAT16)
    return fail(TFP_INVALID, "The values' type must be 0, 1 or 2. Received: %u.",
                header->value_type);
  return tfprune::check_conv(&header->conv);
}

// Takes `count` items off the blob; false if there are not so many.
struct Reader {
  const char* at;
  int64_t left;

  template <class T>
  bool take(int64_t count, std::vector<T>* to) {
    if (count < 0 || count > left / static_cast<int64_t>(sizeof(T))) return false;
    to->resize(static_cast<size_t>(count));
    if (count > 0) std::memcpy(to->data(), at, static_cast<size_t>(count) * sizeof(T));
    at += count * static_cast<int64_t>(sizeof(T));
    left -= count * static_cast<int64_t>(sizeof(T));
    return true;
  }
};

bool take_values(const Header& header, Reader* reader, std::vector<float>* values) {
  if (header.value_type == TFP_FLOAT32) return reader->take(header.value_count, values);
  std::vector<uint16_t> halves;
  if (!reader->take(header.value_count, &halves)) return false;
  values->resize(halves.size());
  for (size_t i = 0; i < halves.size(); ++i)
    (*values)[i] = header.value_type == TFP_BFLOAT16 ? from_bfloat16(halves[i])
                                                     : from_float16(halves[i]);
  return true;
}

}  // namespace

extern "C" tfp_status tfp_read_blob(const void* blob, int64_t bytes, tfp_conv* conv,
                                    uint8_t key[16]) {
  Header header;
  const tfp_status status = read_header(blob, bytes, &header);
  if (status != TFP_OK) return status;
  *conv = header.conv;
  std::memcpy(key, header.key, 16);
  return TFP_OK;
}

extern "C" tfp_status tfp_pack_blob(const void* blob, int64_t bytes, int64_t pixels,
                                    tfp_packed** packed) {
  if (packed == nullptr) return fail(TFP_INVALID, "`packed` must be given. Received: null.");
  *packed = nullptr;
  Header header;
  const tfp_status status = read_header(blob, bytes, &header);
  if (status != TFP_OK) return status;
  try {
    std::vector<int64_t> splits;
    std::vector<int32_t> columns;
    std::vector<float> bias, values;
    Reader reader{static_cast<const char*>(blob) + sizeof(Header),
                  bytes - static_cast<int64_t>(sizeof(Header))};
    if (!reader.take(header.conv.out_channels + 1, &splits) ||
        !reader.take(header.bias_count, &bias) || !reader.take(header.value_count, &columns) ||
        !take_values(header, &reader, &values) || reader.left != 0)
      return fail(TFP_INVALID, "Packed weights must be as long as their header says.");
    return tfp_pack(&header.conv, values.data(), header.value_count, columns.data(),
                    header.value_count, splits.data(), header.conv.out_channels + 1,
                    bias.empty() ? nullptr : bias.data(), header.bias_count, pixels, packed);
  } catch (const std::bad_alloc&) {
    return fail(TFP_NO_MEMORY, "There is not enough memory for the packed weights.");
  }
}
