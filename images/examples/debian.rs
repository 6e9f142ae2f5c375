//! Builds the Debian image.
fn main() {
    let t = std::time::Instant::now();
    println!("{:?}", kagero_images::debian::Image::default().ensure());
    println!("{:?}", t.elapsed());
}
