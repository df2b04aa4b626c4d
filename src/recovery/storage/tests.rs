//! Storage on local disk, and URLs and URIs of all storages.

use super::*;

#[test]
fn invalid_urls_are_refused_without_repeating_their_secrets() {
    for url in [
        "",
        "outputs",
        "http://bucket/prefix",
        "s3:bucket",
        "s3://",
        "s3:///prefix",
        "s3://KEY:SECRET@bucket/prefix",
        "s3://bucket?SECRET/prefix",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "gs://buck et/",
        "file:///",
    ] {
        let error = ObjectStorage::open(url, FilePath::new("/srv")).unwrap_err();
        assert!(matches!(error, StorageError::Url { .. }), "{url}");
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}

#[test]
fn uris_encode_the_object_path_once() {
    let key = ObjectKey::new("a/b", 0, 7).with_extension("png");
    let local = ObjectStorage::open("file:./out put", FilePath::new("/srv")).unwrap();
    assert_eq!(local.uri(&key), "file:///srv/out%20put/a%252Fb/0/7.png");
    let file = Url::parse(&local.uri(&key)).unwrap().to_file_path().unwrap();
    assert_eq!(file, FilePath::new("/srv/out put/a%2Fb/0/7.png"));

    let bucket = |url| {
        ObjectStorage::bucket("s3", url, |_| Ok((Arc::new(object_store::memory::InMemory::new()), None)))
            .unwrap()
    };
    assert_eq!(bucket("//bucket/some/prefix/").uri(&key), "s3://bucket/some/prefix/a%2Fb/0/7.png");
    assert_eq!(bucket("//bucket").uri(&key), "s3://bucket/a%2Fb/0/7.png");
}

#[tokio::test]
async fn a_check_leaves_no_file_and_fails_if_the_storage_is_not_writable() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("file:./out", scratch.path()).unwrap();
    storage.check().await.unwrap();
    let left: Vec<_> = files_below(scratch.path());
    assert!(left.is_empty(), "{left:?}");

    std::fs::write(scratch.path().join("file"), b"").unwrap();
    let blocked = ObjectStorage::open("file:./file/below", scratch.path()).unwrap();
    let error = blocked.check().await.unwrap_err();
    assert!(matches!(error, StorageError::Object { action: "write", .. }), "{error:?}");
}

#[tokio::test]
async fn deleting_is_idempotent() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("file:.", scratch.path()).unwrap();
    let key = ObjectKey::new("ch", 0, 1);
    storage.delete(&key).await.unwrap();
    storage.put(&storage.path(&key), Bytes::from_static(b"x"), "text/plain").await.unwrap();
    assert_eq!(files_below(scratch.path()).len(), 1);
    storage.delete(&key).await.unwrap();
    assert!(files_below(scratch.path()).is_empty());
}

#[tokio::test]
async fn symbolic_links_below_the_directory_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (real, elsewhere) = (scratch.path().join("real"), scratch.path().join("elsewhere"));
    for directory in [&real, &elsewhere] {
        std::fs::create_dir_all(directory.join("0")).unwrap();
    }
    // The directory itself may be a link: the operator configured it.
    std::os::unix::fs::symlink(&real, scratch.path().join("out")).unwrap();
    let storage = ObjectStorage::open("file:./out", scratch.path()).unwrap();
    storage.check().await.unwrap();
    let key = |charge: &str| ObjectKey::new(charge, 0, 7).with_extension("png");
    let put =
        async |key: &ObjectKey| storage.put(&storage.path(key), Bytes::from_static(b"x"), "image/png").await;
    put(&key("fine")).await.unwrap();
    assert!(real.join("fine/0/7.png").exists());

    // A link in place of a charge's directory, of an index directory, and of a file.
    std::fs::write(elsewhere.join("0/7.png"), b"not ours").unwrap();
    std::fs::write(elsewhere.join("0/7.png#1"), b"nor this").unwrap();
    std::os::unix::fs::symlink(&elsewhere, real.join("charge")).unwrap();
    for directory in ["index", "file/0"] {
        std::fs::create_dir_all(real.join(directory)).unwrap();
    }
    std::os::unix::fs::symlink(elsewhere.join("0"), real.join("index/0")).unwrap();
    std::os::unix::fs::symlink(elsewhere.join("0/7.png"), real.join("file/0/7.png")).unwrap();
    for (charge, link) in [("charge", "out/charge"), ("index", "out/index/0"), ("file", "out/file/0/7.png")] {
        let (key, link) = (key(charge), scratch.path().join(link));
        let path = storage.path(&key);
        for (action, ended) in [
            ("write", put(&key).await),
            ("write", storage.start_upload(&path, "image/png").await.map(drop)),
            ("read", storage.size_of(&storage.uri(&key)).await.map(drop)),
            ("delete", storage.delete(&key).await),
            ("delete", storage.clear(path.as_ref(), None, false).await),
        ] {
            let told = ended.unwrap_err().to_string();
            let expected =
                format!("could not {action} {}: {} is a symbolic link", storage.uri(&key), link.display());
            assert!(told.starts_with(&expected), "{told}");
        }
    }
    // The URI was recorded before the storage was moved: the parts that makegood created are
    // checked too.
    let moved = ObjectStorage::open("file:./new", scratch.path()).unwrap();
    let told = moved.size_of(&storage.uri(&key("charge"))).await.unwrap_err();
    assert!(matches!(told, StorageError::Link { .. }), "{told}");
    assert_eq!(moved.size_of(&storage.uri(&key("fine"))).await.unwrap(), Some(1));
    assert_eq!(std::fs::read(elsewhere.join("0/7.png")).unwrap(), b"not ours");
    assert_eq!(files_below(&elsewhere).len(), 2, "nothing was written or deleted there");
}

/// Every file below `directory`, including temporary files that a store does not list.
fn files_below(directory: &FilePath) -> Vec<PathBuf> {
    super::super::tests::files_below(directory)
}
