//! `wasi:http/types`: what a guest builds there lies in the host's memory, so it counts.

use http::HeaderMap;
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource},
};
use wasmtime_wasi_http::{
    FieldMap, WasiHttpView,
    p2::{
        HeaderError, HttpError,
        bindings::http::types::{
            self, ErrorCode, HostFields, HostFutureIncomingResponse, HostOutgoingBody, HostOutgoingRequest, Method,
            Scheme,
        },
        body, types as held,
    },
};

use crate::{
    guest::CallState,
    handed::takes,
    memory::{BODY_HELD, weight_of_field, weight_of_fields, weight_of_method, weight_of_scheme},
};

/// The store of a call, as its host functions get it.
type Store<'a> = StoreContextMut<'a, CallState>;
type Fields = Resource<FieldMap>;
type Request = Resource<held::HostOutgoingRequest>;

impl CallState {
    /// Counts what the guest hands over before it is taken, so that it is stopped before the memory is used.
    fn hold(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.cap.hold(bytes, &mut self.table)
    }

    /// The same of one text, and of no more than one call may hand over.
    fn take(&mut self, bytes: usize) -> wasmtime::Result<()> {
        takes(bytes)?;
        self.hold(bytes)
    }
}

/// Gives a refusal to the guest as its own error; what is no refusal ends the call.
fn header<T>(outcome: Result<T, HeaderError>) -> wasmtime::Result<(Result<T, types::HeaderError>,)> {
    match outcome {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// The same for errors of a request.
fn http<T>(outcome: Result<T, HttpError>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match outcome {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// Puts a count before every function by which a guest makes the host hold more: fields, the parts of a request's head, the
/// body of a request, the head of a response.
pub(crate) fn count_what_is_held(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.func_wrap("[static]fields.from-list", |mut store: Store<'_>, (list,): (Vec<(String, Vec<u8>)>,)| {
        takes(list.iter().map(|(name, value)| name.len() + value.len()).sum())?;
        let state = store.data_mut();
        state.hold(list.iter().map(|(name, value)| weight_of_field(name, value)).sum())?;
        header(HostFields::from_list(&mut state.http(), list))
    })?;
    types.func_wrap(
        "[method]fields.set",
        |mut store: Store<'_>, (fields, name, values): (Fields, String, Vec<Vec<u8>>)| {
            takes(name.len() + values.iter().map(Vec::len).sum::<usize>())?;
            let state = store.data_mut();
            state.hold(values.iter().map(|value| weight_of_field(&name, value)).sum())?;
            header(HostFields::set(&mut state.http(), fields, name, values))
        },
    )?;
    types.func_wrap(
        "[method]fields.append",
        |mut store: Store<'_>, (fields, name, value): (Fields, String, Vec<u8>)| {
            takes(name.len() + value.len())?;
            let state = store.data_mut();
            state.hold(weight_of_field(&name, &value))?;
            header(HostFields::append(&mut state.http(), fields, name, value))
        },
    )?;
    types.func_wrap("[method]fields.clone", |mut store: Store<'_>, (fields,): (Fields,)| {
        let state = store.data_mut();
        // The two share what they hold until one is changed, of which nobody is told.
        let weight = weight_of_fields(state.table.get(&fields)?);
        state.hold(weight)?;
        Ok((HostFields::clone(&mut state.http(), fields)?,))
    })?;
    bound_names(&mut types)?;
    count_requests(&mut types)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The functions that take the name of a field and keep nothing: each with the bound that all functions have.
fn bound_names(types: &mut wasmtime::component::LinkerInstance<'_, CallState>) -> wasmtime::Result<()> {
    types.func_wrap("[method]fields.get", |mut store: Store<'_>, (fields, name): (Fields, String)| {
        takes(name.len())?;
        Ok((HostFields::get(&mut store.data_mut().http(), fields, name)?,))
    })?;
    types.func_wrap("[method]fields.has", |mut store: Store<'_>, (fields, name): (Fields, String)| {
        takes(name.len())?;
        Ok((HostFields::has(&mut store.data_mut().http(), fields, name)?,))
    })?;
    types.func_wrap("[method]fields.delete", |mut store: Store<'_>, (fields, name): (Fields, String)| {
        takes(name.len())?;
        header(HostFields::delete(&mut store.data_mut().http(), fields, name))
    })
}

/// The functions by which a guest builds a request, each with its memory counted first. They stand in place of the
/// engine's own, which count nothing.
fn count_requests(types: &mut wasmtime::component::LinkerInstance<'_, CallState>) -> wasmtime::Result<()> {
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut store: Store<'_>, (request, method): (Request, Method)| {
            let state = store.data_mut();
            state.take(weight_of_method(&method))?;
            Ok((HostOutgoingRequest::set_method(&mut state.http(), request, method)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-scheme",
        |mut store: Store<'_>, (request, scheme): (Request, Option<Scheme>)| {
            let state = store.data_mut();
            state.take(scheme.as_ref().map_or(0, weight_of_scheme))?;
            Ok((HostOutgoingRequest::set_scheme(&mut state.http(), request, scheme)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut store: Store<'_>, (request, authority): (Request, Option<String>)| {
            let state = store.data_mut();
            state.take(authority.as_ref().map_or(0, String::len))?;
            Ok((HostOutgoingRequest::set_authority(&mut state.http(), request, authority)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut store: Store<'_>, (request, path): (Request, Option<String>)| {
            let state = store.data_mut();
            state.take(path.as_ref().map_or(0, String::len))?;
            Ok((HostOutgoingRequest::set_path_with_query(&mut state.http(), request, path)?,))
        },
    )?;
    types.func_wrap("[method]outgoing-request.body", |mut store: Store<'_>, (request,): (Request,)| {
        let state = store.data_mut();
        state.hold(BODY_HELD)?;
        Ok((HostOutgoingRequest::body(&mut state.http(), request)?,))
    })?;
    types.func_wrap(
        "[static]outgoing-body.finish",
        |mut store: Store<'_>, (body, trailers): (Resource<body::HostOutgoingBody>, Option<Fields>)| {
            let state = store.data_mut();
            if let Some(trailers) = &trailers {
                // They go where they are not seen again, until the request is sent.
                let weight = weight_of_fields(state.table.get(trailers)?);
                state.cap.keep(weight, &mut state.table)?;
            }
            http(HostOutgoingBody::finish(&mut state.http(), body, trailers))
        },
    )?;
    types.func_wrap(
        "[method]future-incoming-response.get",
        |mut store: Store<'_>, (response,): (Resource<held::HostFutureIncomingResponse>,)| {
            let state = store.data_mut();
            if let held::HostFutureIncomingResponse::Ready(Ok((response, _))) = state.table.get(&response)? {
                let headers: &HeaderMap = response.headers();
                let weight = weight_of_fields(headers);
                state.hold(weight)?;
            }
            Ok((HostFutureIncomingResponse::get(&mut state.http(), response)?,))
        },
    )?;
    Ok(())
}
