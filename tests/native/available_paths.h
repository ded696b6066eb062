// The paths that this machine's lookups can take.
#ifndef EDGEKIT_AVAILABLE_PATHS_H_
#define EDGEKIT_AVAILABLE_PATHS_H_

#include <string>
#include <vector>

#include "edgekit_codebook.h"

inline std::vector<std::string> available_paths() {
  const float one = 1;
  edgekit_codebook* handle = nullptr;
  if (edgekit_codebook_pack(&one, 1, 1, EDGEKIT_CODEBOOK_DOT, &handle) != 0) return {};
  std::string text(edgekit_codebook_describe(handle, nullptr, 0), '\0');
  edgekit_codebook_describe(handle, text.data(), text.size());
  edgekit_codebook_free(handle);
  std::vector<std::string> paths;
  size_t at = text.find("\"available\": [");
  while (at != std::string::npos && (at = text.find('"', at + 14)) != std::string::npos) {
    const size_t end = text.find('"', at + 1);
    paths.push_back(text.substr(at + 1, end - at - 1));
    at = text.find(',', end);
    if (at != std::string::npos) at -= 12;
  }
  return paths;
}

#endif  // EDGEKIT_AVAILABLE_PATHS_H_
