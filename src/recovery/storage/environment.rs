//! Validates the environment variables of the cloud clients before a client is created.
//!
//! The clients do not validate them. An endpoint without a scheme, or a token with a line feed,
//! makes a client panic during a pass, which ends the process and leaves its leases to expire. An
//! endpoint with a path makes it store files at another place than the recorded URI, without an
//! error. The error names the variable but not its value, which may be a secret.
//!
//! Pure: the variables are passed in. Values that the clients reject themselves are not checked
//! here.

use std::ffi::OsString;

use object_store::ClientConfigKey as Client;
use object_store::aws::AmazonS3ConfigKey as Aws;
use object_store::azure::AzureConfigKey as Azure;
use object_store::gcp::GoogleConfigKey as Google;
use url::Url;

use super::StorageError;

/// How a client uses a variable, as far as it needs validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The endpoint of the object store. If several are set, the one with the highest number is
    /// used.
    Endpoint(u8),
    /// An endpoint that issues credentials.
    CredentialEndpoint,
    /// Whether the endpoint's host begins with the bucket.
    VirtualHosted,
    /// Whether plain HTTP is allowed.
    AllowHttp,
    /// A credential or a region: becomes part of a header or of the default endpoint.
    HeaderPart,
    /// Not validated.
    Other,
}

/// A variable that a client reads.
#[derive(Debug)]
struct Variable {
    name: String,
    value: String,
    role: Role,
}

/// How the client of one cloud uses endpoints.
#[derive(Debug)]
struct Cloud {
    /// The variable that allows plain HTTP.
    allow_http: &'static str,
    /// Whether an endpoint may have a path. The endpoint of Azure's emulator has one.
    may_have_path: bool,
    /// A valid endpoint, for error messages.
    example: &'static str,
}

/// Refuses variables that would make the client of `scheme` panic or write outside of `bucket`.
pub(super) fn check(
    scheme: &str,
    bucket: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), StorageError> {
    let variables: Vec<Variable> = environment
        .into_iter()
        .filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let role = role(scheme, &name)?;
            Some(Variable { name, value, role })
        })
        .collect();
    let cloud = match scheme {
        "s3" => Cloud {
            allow_http: "AWS_ALLOW_HTTP",
            may_have_path: false,
            example: "https://minio.example:9000",
        },
        "gs" => Cloud {
            allow_http: "GOOGLE_ALLOW_HTTP",
            may_have_path: false,
            example: "https://storage.googleapis.com",
        },
        _ => Cloud {
            allow_http: "AZURE_ALLOW_HTTP",
            may_have_path: true,
            example: "https://account.blob.core.windows.net",
        },
    };
    let refused = |variable: &Variable, why: String| StorageError::Variable {
        root: format!("{scheme}://{bucket}"),
        variable: variable.name.clone(),
        why,
    };
    for variable in &variables {
        if let Some(why) = invalid_text(variable) {
            return Err(refused(variable, why.to_owned()));
        }
    }
    let is_on =
        |wanted: Role| variables.iter().any(|variable| variable.role == wanted && is_true(&variable.value));
    for variable in variables.iter().filter(|variable| variable.role == Role::CredentialEndpoint) {
        parse(&variable.value, cloud.example).map_err(|why| refused(variable, why))?;
    }
    let rank = |variable: &Variable| match variable.role {
        Role::Endpoint(rank) => Some(rank),
        _ => None,
    };
    let Some(highest) = variables.iter().filter_map(rank).max() else { return Ok(()) };
    let mut counts = variables.iter().filter(|variable| rank(variable) == Some(highest));
    let Some(endpoint) = counts.next() else { return Ok(()) };
    if let Some(other) = counts.find(|other| other.value != endpoint.value) {
        return Err(refused(
            other,
            format!("names another endpoint than {}: unset one of them", endpoint.name),
        ));
    }
    check_endpoint(&endpoint.value, bucket, &cloud, is_on(Role::VirtualHosted), is_on(Role::AllowHttp))
        .map_err(|why| refused(endpoint, why))
}

/// The role of a variable for the client of `scheme`. `None`: the client does not read it.
fn role(scheme: &str, name: &str) -> Option<Role> {
    let key = name.to_ascii_lowercase();
    let of_client = |client: &Client| match client {
        Client::AllowHttp => Role::AllowHttp,
        _ => Role::Other,
    };
    match scheme {
        "s3" if name.starts_with("AWS_") => Some(match key.parse::<Aws>().ok()? {
            Aws::Endpoint => Role::Endpoint(0),
            Aws::S3Endpoint => Role::Endpoint(1),
            Aws::StsEndpoint | Aws::MetadataEndpoint => Role::CredentialEndpoint,
            Aws::VirtualHostedStyleRequest => Role::VirtualHosted,
            Aws::AccessKeyId | Aws::SecretAccessKey | Aws::Token | Aws::Region | Aws::DefaultRegion => {
                Role::HeaderPart
            }
            Aws::Client(client) => of_client(&client),
            _ => Role::Other,
        }),
        "gs" if name.starts_with("GOOGLE_") => Some(match key.parse::<Google>().ok()? {
            Google::BaseUrl => Role::Endpoint(0),
            Google::BearerToken => Role::HeaderPart,
            Google::Client(client) => of_client(&client),
            _ => Role::Other,
        }),
        "az" if name.starts_with("AZURE_") => Some(match key.parse::<Azure>().ok()? {
            Azure::Endpoint => Role::Endpoint(0),
            Azure::MsiEndpoint | Azure::AuthorityHost => Role::CredentialEndpoint,
            Azure::AccountName | Azure::AccessKey | Azure::Token | Azure::SasKey => Role::HeaderPart,
            Azure::Client(client) => of_client(&client),
            _ => Role::Other,
        }),
        _ => None,
    }
}

/// Why a value is invalid in any role: empty, or with white space or control characters.
fn invalid_text(variable: &Variable) -> Option<&'static str> {
    if matches!(variable.role, Role::Other | Role::VirtualHosted | Role::AllowHttp) {
        return None;
    }
    if variable.value.is_empty() {
        return Some("is empty: unset it, or set it");
    }
    let is_bad = |letter: char| letter.is_whitespace() || letter.is_control();
    variable.value.contains(is_bad).then_some(
        "has white space or a control character in it, for example a line feed at its end: remove it",
    )
}

/// Parses a boolean as the clients do.
fn is_true(value: &str) -> bool {
    ["1", "true", "on", "yes", "y"].contains(&value.to_ascii_lowercase().as_str())
}

/// Parses an endpoint. Refuses credentials, a query and a fragment, which the clients would drop or
/// send along.
fn parse(value: &str, example: &str) -> Result<Url, String> {
    let form = |what: &str| Err(format!("{what}: write scheme, host and port, such as {example}"));
    let Some((scheme, _)) = value.split_once("://") else { return form("has no scheme") };
    if !["http", "https"].contains(&scheme) {
        return form("has a scheme other than http and https");
    }
    let Ok(url) = Url::parse(value) else { return form("is no URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has credentials in it: the client has variables of their own for these".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return form("has a query or a fragment");
    }
    Ok(url)
}

fn check_endpoint(
    value: &str,
    bucket: &str,
    cloud: &Cloud,
    is_virtual_hosted: bool,
    may_be_http: bool,
) -> Result<(), String> {
    let url = parse(value, cloud.example)?;
    let path = url.path().trim_matches('/');
    if path.rsplit('/').next() == Some(bucket) {
        return Err(format!(
            "ends in `{bucket}`: the client adds the bucket, so every file would be stored where its URI does not \
             point; leave the bucket out, it is part of `storage.url`"
        ));
    }
    if !path.is_empty() && !cloud.may_have_path {
        return Err(format!(
            "has a path: the client would store files below it, where their URI does not point; \
             write scheme, host and port, such as {}",
            cloud.example
        ));
    }
    if is_virtual_hosted {
        if !url.host_str().is_some_and(|host| host.starts_with(&format!("{bucket}."))) {
            return Err(format!(
                "does not begin with the bucket, and AWS_VIRTUAL_HOSTED_STYLE_REQUEST is on: every file would be \
                 stored outside of `{bucket}`; unset AWS_VIRTUAL_HOSTED_STYLE_REQUEST"
            ));
        }
        if value.ends_with('/') {
            return Err("ends in a slash: every key would begin with one; leave it out".to_owned());
        }
    } else if bucket_is_in_host(&url, bucket) {
        return Err(format!(
            "begins with the bucket, and AWS_VIRTUAL_HOSTED_STYLE_REQUEST is off: the client would add the bucket \
             again; leave `{bucket}.` out"
        ));
    }
    // Google's client adds a slash itself.
    if cloud.allow_http == "GOOGLE_ALLOW_HTTP" && value.ends_with('/') {
        return Err("ends in a slash: the client would add another one; leave it out".to_owned());
    }
    if url.scheme() == "http" && !may_be_http {
        return Err(format!("uses http, and the client refuses plain HTTP: set {}=true", cloud.allow_http));
    }
    Ok(())
}

/// Whether the host is the bucket's own address at AWS or R2, such as `bucket.s3.amazonaws.com`. At
/// other services the first label may equal the bucket by chance, for example `minio` at
/// `minio.example`.
fn bucket_is_in_host(url: &Url, bucket: &str) -> bool {
    let rest =
        url.host_str().and_then(|host| host.strip_prefix(bucket)).and_then(|rest| rest.strip_prefix('.'));
    rest.is_some_and(|rest| rest.ends_with("amazonaws.com") || rest.ends_with("r2.cloudflarestorage.com"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(scheme: &str, variables: &[(&str, &str)]) -> String {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        check(scheme, "outputs", variables).err().map_or_else(String::new, |error| error.to_string())
    }

    /// A scheme, variables, and a part of the error.
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn variables_that_would_break_a_client_are_refused_by_name() {
        const HTTP: (&str, &str) = ("AWS_ALLOW_HTTP", "true");
        const VIRTUAL: (&str, &str) = ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true");
        let table: &[Row<'_>] = &[
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "minio:9000"), HTTP],
                "AWS_ENDPOINT_URL has no scheme: write scheme, host and port, such as https://minio.example:9000",
            ),
            ("s3", &[("AWS_ENDPOINT", "minio"), HTTP], "AWS_ENDPOINT has no scheme"),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "s3://minio:9000")],
                "AWS_ENDPOINT_URL has a scheme other than http and https",
            ),
            ("s3", &[("AWS_ENDPOINT_URL", "https://")], "AWS_ENDPOINT_URL is no URL"),
            ("s3", &[("AWS_ENDPOINT_URL", "")], "AWS_ENDPOINT_URL is empty: unset it"),
            ("s3", &[("AWS_ENDPOINT_URL", "https://minio:9000\n")], "AWS_ENDPOINT_URL has white space"),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "https://id:SECRET@minio")],
                "AWS_ENDPOINT_URL has credentials in it",
            ),
            ("s3", &[("AWS_ENDPOINT_URL", "https://minio/?x=SECRET")], "AWS_ENDPOINT_URL has a query"),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "http://minio:9000")],
                "AWS_ENDPOINT_URL uses http, and the client refuses plain HTTP: set AWS_ALLOW_HTTP=true",
            ),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "http://minio:9000"), ("AWS_ALLOW_HTTP", "false")],
                "set AWS_ALLOW_HTTP=true",
            ),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "https://account.r2.cloudflarestorage.com/outputs")],
                "AWS_ENDPOINT_URL ends in `outputs`: the client adds the bucket",
            ),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "https://account.r2.cloudflarestorage.com/outputs/")],
                "ends in `outputs`",
            ),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "https://account.r2.cloudflarestorage.com/other")],
                "AWS_ENDPOINT_URL has a path",
            ),
            (
                "s3",
                &[("AWS_ENDPOINT_URL_S3", "https://minio/outputs"), ("AWS_ENDPOINT_URL", "https://minio")],
                "AWS_ENDPOINT_URL_S3 ends in",
            ),
            (
                "s3",
                &[("AWS_ENDPOINT", "https://a"), ("AWS_ENDPOINT_URL", "https://b")],
                "AWS_ENDPOINT_URL names another endpoint than AWS_ENDPOINT",
            ),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "https://minio:9000"), VIRTUAL],
                "AWS_ENDPOINT_URL does not begin with the bucket",
            ),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "https://outputs.s3.example/"), VIRTUAL],
                "AWS_ENDPOINT_URL ends in a slash",
            ),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "https://outputs.s3.eu-west-1.amazonaws.com")],
                "AWS_ENDPOINT_URL begins with the bucket",
            ),
            ("s3", &[("AWS_ENDPOINT_URL_STS", "sts.example")], "AWS_ENDPOINT_URL_STS has no scheme"),
            ("s3", &[("AWS_SESSION_TOKEN", "SECRET\n")], "AWS_SESSION_TOKEN has white space"),
            ("s3", &[("AWS_ACCESS_KEY_ID", "")], "AWS_ACCESS_KEY_ID is empty"),
            ("s3", &[("AWS_REGION", "eu west")], "AWS_REGION has white space"),
            ("gs", &[("GOOGLE_BASE_URL", "localhost:4443")], "GOOGLE_BASE_URL has no scheme"),
            ("gs", &[("GOOGLE_BASE_URL", "https://gcs.example/")], "GOOGLE_BASE_URL ends in a slash"),
            ("gs", &[("GOOGLE_BASE_URL", "http://gcs.example")], "set GOOGLE_ALLOW_HTTP=true"),
            ("az", &[("AZURE_STORAGE_ENDPOINT", "azurite:10000")], "AZURE_STORAGE_ENDPOINT has no scheme"),
            (
                "az",
                &[("AZURE_ENDPOINT", "https://account.blob.core.windows.net/outputs")],
                "AZURE_ENDPOINT ends in `outputs`",
            ),
            (
                "az",
                &[("AZURE_ENDPOINT", "http://azurite:10000/devstoreaccount1")],
                "set AZURE_ALLOW_HTTP=true",
            ),
            (
                "az",
                &[("AZURE_STORAGE_ACCOUNT_NAME", "account\n")],
                "AZURE_STORAGE_ACCOUNT_NAME has white space",
            ),
        ];
        for (scheme, variables, expected) in table {
            let told = error(scheme, variables);
            let start = format!("the storage {scheme}://outputs cannot be used: the environment variable ");
            assert!(told.starts_with(&start) && told.contains(expected), "{variables:?}: {told}");
            assert!(!told.contains("SECRET"), "{told}");
        }
    }

    #[test]
    fn valid_variables_are_accepted() {
        const HTTP: (&str, &str) = ("AWS_ALLOW_HTTP", "true");
        let table: &[(&str, &[(&str, &str)])] = &[
            ("s3", &[]),
            ("s3", &[("AWS_ENDPOINT_URL", "http://minio:9000"), HTTP]),
            ("s3", &[("AWS_ENDPOINT_URL", "http://minio:9000/"), ("AWS_ALLOW_HTTP", "1")]),
            ("s3", &[("AWS_ENDPOINT_URL", "http://[::1]:9000"), HTTP]),
            ("s3", &[("AWS_ENDPOINT_URL", "https://outputs.example")]),
            (
                "s3",
                &[("AWS_ENDPOINT_URL", "https://account.r2.cloudflarestorage.com"), ("AWS_REGION", "auto")],
            ),
            (
                "s3",
                &[
                    ("AWS_ENDPOINT_URL", "https://outputs.s3.example"),
                    ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
                ],
            ),
            ("s3", &[("AWS_ENDPOINT_URL_S3", "https://minio"), ("AWS_ENDPOINT_URL", "dynamo:1")]),
            ("s3", &[("AWS_ENDPOINT_URL_DYNAMODB", "dynamo:1"), ("GOOGLE_BASE_URL", "nonsense")]),
            ("gs", &[("GOOGLE_BASE_URL", "https://gcs.example"), ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\n}\n")]),
            (
                "az",
                &[("AZURE_ENDPOINT", "http://azurite:10000/devstoreaccount1"), ("AZURE_ALLOW_HTTP", "true")],
            ),
        ];
        for (scheme, variables) in table {
            assert_eq!(error(scheme, variables), "", "{variables:?}");
        }
    }
}
