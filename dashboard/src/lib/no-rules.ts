// Stands in for buf/validate/validate_pb in what is built: 70 kB of rules that only servers apply. See vite.config.ts.
import type { GenFile } from "@bufbuild/protobuf/codegenv2";
import { fileDesc } from "@bufbuild/protobuf/codegenv2";

/** The file buf/validate/validate.proto, empty. */
export const file_buf_validate_validate: GenFile = fileDesc(
  "ChtidWYvdmFsaWRhdGUvdmFsaWRhdGUucHJvdG8SDGJ1Zi52YWxpZGF0ZWIGcHJvdG8z",
);
