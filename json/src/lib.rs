//! JSON documents and JSONPath.
