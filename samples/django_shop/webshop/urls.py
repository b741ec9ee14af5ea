"""Which path is which view."""

from django.urls import path
from orders import views

urlpatterns = [
    path("price/<str:item>", views.price),
    path("orders", views.order),
    path("orders/<int:number>", views.show_order),
]
