// grpc-js speaks HTTP/2, the generated messages know their bytes; this joins the two.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { makeGenericClientConstructor } from "@grpc/grpc-js";

/** A client class of grpc-js for a generated service. */
export function clientOf(service) {
  const definition = Object.fromEntries(service.methods.map((method) => [method.localName, definitionOf(method)]));
  return makeGenericClientConstructor(definition, service.typeName);
}

function definitionOf(method) {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: ["client_streaming", "bidi_streaming"].includes(method.methodKind),
    responseStream: ["server_streaming", "bidi_streaming"].includes(method.methodKind),
    requestSerialize: (message) => Buffer.from(toBinary(method.input, create(method.input, message))),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes),
    responseSerialize: (message) => Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
  };
}

/** A call with one answer, as a promise. */
export function call(client, method, request, metadata, seconds = 30) {
  const options = { deadline: Date.now() + seconds * 1000 };
  return new Promise((resolve, reject) => {
    client[method](request, metadata, options, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}
