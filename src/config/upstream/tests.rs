use super::*;

#[test]
fn addresses() {
    let check = |text: &str, expected: &str| {
        let address: ServerAddress = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(address.to_string(), expected, "{text}");
    };
    check("istiod.istio-system.svc:15012", "https://istiod.istio-system.svc:15012");
    check("https://istiod:15012", "https://istiod:15012");
    check("https://istiod:15012/", "https://istiod:15012");
    check("https://ca.example", "https://ca.example:443");
    check("https://[fd00::1]:15012", "https://[fd00::1]:15012");
    check("https://[fd00::1]", "https://[fd00::1]:443");
    check("http://127.0.0.1:15010", "http://127.0.0.1:15010");
    check("http://[::1]:15010", "http://[::1]:15010");
    check("http://localhost", "http://localhost:80");
}

#[test]
fn what_is_no_address_is_refused_and_so_is_plain_text_over_the_network() {
    let check = |text: &str, expected: AddressError| {
        assert_eq!(text.parse::<ServerAddress>(), Err(expected), "{text}");
    };
    check("", AddressError::Form);
    check("https://", AddressError::Form);
    check("https://:15012", AddressError::Form);
    check("https://a:0", AddressError::Form);
    check("https://a:65536", AddressError::Form);
    check("https://a:", AddressError::Form);
    check("https://user@a:1", AddressError::Form);
    check("https://a:1/path", AddressError::Form);
    check("https://a:1?query", AddressError::Form);
    check("two words", AddressError::Form);
    check("grpc://a:1", AddressError::Scheme);
    check("http://istiod:15010", AddressError::NotLoopback);
    check("http://10.0.0.1:15010", AddressError::NotLoopback);
    check("http://localhost.example:15010", AddressError::NotLoopback);
}

/// The settings of the server `CA` with these variables.
fn read(variables: &[(&str, &str)]) -> (Upstream, Vec<String>) {
    let lookup = |name: &str| {
        let found = variables.iter().find(|(other, _)| *other == name)?;
        Some(found.1.to_owned())
    };
    let names = || variables.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut env = Env::new(&lookup, &names);
    let address = "https://ca:1".parse().unwrap();
    let exists = |path: &Path| path == Path::new("there");
    let known = Known { cluster_id: &"c1".into(), exists: &exists };
    let upstream = Upstream::read(&mut env, "CA", address, &known);
    let wrong = env.finish().err().into_iter().flatten().map(|error| error.name).collect();
    (upstream, wrong)
}

#[test]
fn a_root_is_a_file_the_systems_or_pem() {
    let root = |text: &str| read(&[("CA_ROOT_CA", text)]).0.root;
    assert_eq!(read(&[]).0.root, TrustRoot::File(ROOT_DEFAULT.into()));
    assert_eq!(root("there"), TrustRoot::File("there".into()));
    assert_eq!(root("SYSTEM"), TrustRoot::System);
    let pem = "-----BEGIN CERTIFICATE-----\n";
    assert_eq!(root(pem), TrustRoot::Pem(pem.into()));
    assert_eq!(root("/mounted/later"), TrustRoot::File("/mounted/later".into()));
    assert_eq!(read(&[("XDS_ROOT_CA", "SYSTEM")]).0.root, TrustRoot::File(ROOT_DEFAULT.into()));
}

#[test]
fn a_token_is_a_file_or_itself_and_is_never_shown() {
    let token = |variables: &[(&str, &str)]| read(variables).0.token;
    let file = |path: &str| Some(Token::File(path.into()));
    assert_eq!(token(&[]), None);
    assert_eq!(token(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]), file(TOKEN_DEFAULT));
    assert_eq!(token(&[("AUTH_TOKEN", "there")]), file("there"));
    assert_eq!(token(&[("AUTH_TOKEN", "/mounted/later")]), file("/mounted/later"));
    assert_eq!(token(&[("AUTH_TOKEN", "./mounted/later")]), file("./mounted/later"));
    let secret = token(&[("AUTH_TOKEN", "eyJsecret")]);
    assert_eq!(secret, Some(Token::Text("eyJsecret".into())));
    assert!(!format!("{secret:?}").contains("secret"));
}

#[test]
fn headers_are_those_with_the_prefix() {
    let (upstream, wrong) = read(&[
        ("CA_HEADER_X-Tenant", " blue "),
        ("CA_HEADER_", "nameless"),
        ("XDS_HEADER_other", "1"),
        ("CA_HEADER_a b", "1"),
        ("CA_HEADER_line", "1\n2"),
    ]);
    assert_eq!(wrong, ["CA_HEADER_a b", "CA_HEADER_line"]);
    let headers: Vec<_> =
        upstream.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(headers, [("x-tenant", b"blue".as_slice())]);
    assert!(!format!("{upstream:?}").contains("blue"));
}
